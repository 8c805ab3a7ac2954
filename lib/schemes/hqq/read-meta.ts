import type { TensorEntry } from '../../containers/container.js';
import type { SmallValue } from '../scalar-tensors.js';
import { type ByteMeta, codesKey, INNER_VALUES, innerKey, metaShape } from './byte-meta.js';

/** How scale or zero of a layer are stored. */
export interface StoredMeta {
  /** The numbers, or, with `sets`, the bytes that they are quantized to. */
  readonly values: TensorEntry;
  readonly sets?: {
    /** Sets of groups: group `g` is of set `g % count`. */
    readonly count: number;
    /** One number a set. */
    readonly scale: TensorEntry;
    readonly zero: TensorEntry;
  };
}

/** The tensors of it. */
export function entriesOf({ values, sets }: StoredMeta): readonly TensorEntry[] {
  return sets === undefined ? [values] : [values, sets.scale, sets.zero];
}

/** Keys without which scale or zero cannot be read: their own, or those of their codes. */
export function neededFor(meta: ByteMeta, has: (key: string) => boolean): readonly string[] {
  if (has(meta) || !has(codesKey(meta))) return [meta];
  return [codesKey(meta), innerKey(meta, 'scale'), innerKey(meta, 'zero'), innerKey(meta, 'nbits')];
}

/** The small ones among the keys that say how it is quantized. */
export const innerValues = (meta: ByteMeta): readonly string[] => INNER_VALUES.map((key) => innerKey(meta, key));

interface Layer {
  readonly axis: 0 | 1;
  readonly groups: number;
  at(key: string): TensorEntry | undefined;
  value(key: string): SmallValue | undefined;
  refuse(message: string): never;
}

/** Scale or zero of a layer, checked. `quantized` is what the layer says of it. */
export function readMeta(meta: ByteMeta, quantized: boolean, layer: Layer): StoredMeta {
  const { axis, groups, at, refuse } = layer;
  const values = at(quantized ? codesKey(meta) : meta);
  if (values === undefined) {
    return refuse(`has quant_${meta} ${quantized ? 1 : 0} and no ${quantized ? codesKey(meta) : meta}`);
  }
  if (quantized) return { values, sets: readSets(meta, values, layer) };
  const expected = metaShape(axis, groups);
  if (values.type.float === undefined || values.shape.join() !== expected.join()) {
    refuse(`has ${describe(values)} as ${meta}, where a floating-point [${expected.join(', ')}] is needed`);
  }
  return { values };
}

function readSets(meta: ByteMeta, codes: TensorEntry, { groups, at, value, refuse }: Layer) {
  const key = (inner: string) => innerKey(meta, inner);
  const number = (inner: string): number | undefined => {
    const list = value(key(inner))?.numbers;
    if (list !== undefined && list.length !== 1)
      refuse(`has ${list.length} numbers as ${key(inner)}, where one is needed`);
    return list?.[0];
  };
  const demand = (inner: string, got: unknown, wanted: unknown): void => {
    if (got !== undefined && got !== wanted)
      refuse(`has ${key(inner)} ${String(got).slice(0, 40)}, where ${wanted} is needed`);
  };
  demand('nbits', number('nbits'), 8);
  demand('axis', number('axis'), 0);
  demand('view_as_float', number('view_as_float'), 0);
  demand('packing', value(key('packing'))?.text, '8bit_u8');
  const size = number('group_size') ?? groups;
  if (!Number.isSafeInteger(size) || size <= 0 || groups % size !== 0) {
    refuse(`has ${key('group_size')} ${size}, which does not divide ${groups} groups`);
  }
  if (codes.type.name !== 'U8' || codes.end - codes.begin !== groups) {
    refuse(`has ${describe(codes)} as ${codesKey(meta)}, where U8 of ${groups} groups is needed`);
  }
  const count = groups / size;
  const perSet = (inner: string): TensorEntry => {
    const entry = at(key(inner));
    const fits = entry?.type.float !== undefined && (entry.end - entry.begin) / entry.type.blockBytes === count;
    if (fits) return entry;
    const got = entry === undefined ? `no ${key(inner)}` : `${describe(entry)} as ${key(inner)}`;
    return refuse(`has ${got}, where ${count} floating-point numbers are needed`);
  };
  return { count, scale: perSet('scale'), zero: perSet('zero') };
}

export function describe({ type, shape }: TensorEntry): string {
  return `${type.name} [${shape.slice(0, 8).join(', ')}]`;
}
