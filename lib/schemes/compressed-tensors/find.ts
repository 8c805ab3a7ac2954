import { widenBytes } from '../../compute/floats.js';
import { pathOfFile, type TensorEntry, type TensorSource } from '../../containers/container.js';
import { yieldIfDue } from '../../files/event-loop.js';
import { DTYPES } from '../../matrix/dtype.js';
import { columnsOf, type RowChunk, rowsOf } from '../rows/chunks.js';
import type { RowLayer, RowParts } from '../rows/read.js';
import {
  biasOf,
  bitsSaid,
  declaredOf,
  describe,
  groupSizeOf,
  readGroupOf,
  refusalOf,
  wordsIn,
} from '../rows/stored.js';
import { transpose, unpackFields, unpackStreams, wordsOf } from '../rows/streams.js';
import { readSmall } from '../scalar-tensors.js';

/** A layer of `pack-quantized`. */
export interface PackedLayer extends RowLayer {
  readonly packed: TensorEntry;
  readonly scale: TensorEntry;
  readonly zeros: TensorEntry | undefined;
  readonly bits: number;
  /** Words hold whole codes, and no bit stream: 3, 5, 6 and 7 bits as releases of the library before 0.18 have them. */
  readonly fields: boolean;
}

const PACKED = '.weight_packed';

/** Names of the tensors that hold codes: not those of other formats of the library, which have bytes. */
export function namesOfPacked({ entries }: Pick<TensorSource, 'entries'>): readonly string[] {
  return [...entries.values()]
    .filter(({ name, type }) => {
      if (!name.endsWith(PACKED) || type.name !== 'I32') return false;
      return entries.has(`${name.slice(0, -PACKED.length)}.weight_shape`);
    })
    .map(({ name }) => name);
}

/** What a configuration says of some layers. */
interface Said {
  readonly bits: unknown;
  /** Input features of a group; null for whole rows. */
  readonly groupSize: unknown;
}

/** What a configuration says of its layers, by their targets; none where it says nothing. */
function saidOf(config: Readonly<Record<string, unknown>> | undefined): readonly Said[] {
  const of = (value: unknown, key: string): unknown =>
    typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[key] : undefined;
  const groups = declaredOf(config).config_groups;
  if (typeof groups !== 'object' || groups === null) return [];
  return Object.values(groups).map((group) => {
    const weights = of(group, 'weights');
    return { bits: of(weights, 'num_bits'), groupSize: of(weights, 'group_size') };
  });
}

/** Every such layer, in file order. Trusts nothing. @throws {HqqError} `ERR_CHECKPOINT_FORMAT` */
export async function findPacked(source: TensorSource, signal?: AbortSignal): Promise<readonly PackedLayer[]> {
  const { entries } = source;
  const modules = namesOfPacked(source).map((name) => name.slice(0, -PACKED.length));
  if (modules.length === 0) return [];
  const shapes = modules.map((module) => entries.get(`${module}.weight_shape`)!);
  const values = await readSmall(source, shapes, signal);
  const said = saidOf(source.envelope.config);
  const layers: PackedLayer[] = [];
  for (const [i, module] of modules.entries()) {
    layers.push(await readPacked(source, module, values.get(shapes[i]!)!.numbers, said, signal));
    await yieldIfDue();
  }
  return layers;
}

async function readPacked(
  source: TensorSource,
  module: string,
  shape: readonly number[],
  said: readonly Said[],
  signal: AbortSignal | undefined,
): Promise<PackedLayer> {
  const packed = source.entries.get(module + PACKED)!;
  const refuse = refusalOf(pathOfFile(source, packed), module);
  const [outs, ins] = shape as [number, number];
  if (shape.length !== 2 || !shape.every((size) => Number.isSafeInteger(size) && size > 0)) {
    return refuse(`has weight_shape [${shape.slice(0, 8).join(', ')}], where two positive numbers are needed`);
  }
  const count = outs * ins;
  if (!Number.isSafeInteger(count)) return refuse(`has weight_shape [${shape.join(', ')}], which is too large`);
  const at = (key: string) => source.entries.get(`${module}.${key}`);
  const scale = at('weight_scale') ?? refuse('has weight_packed but no weight_scale');
  const zeros = at('weight_zero_point');
  const [rows, width] = packed.shape;
  const only = said.length === 0 ? undefined : new Set(said.map(({ bits }) => bitsSaid(bits, refuse)));
  const way = waysOf(packed, [outs, ins], only)[0];
  if (way === undefined || rows !== outs || packed.shape.length !== 2) {
    const bits = only === undefined ? '1 to 8' : [...only].join(' or ');
    return refuse(
      `has ${describe(packed)} as weight_packed, which does not hold ${outs} x ${ins} codes of ${bits} bits`,
    );
  }
  const { bits, fields } = way;
  const groups = scale.shape.length === 2 ? scale.shape[1]! : scale.shape.length === 1 ? 1 : 0;
  if (scale.type.float === undefined || scale.shape[0] !== outs || groups === 0) {
    return refuse(
      `has ${describe(scale)} as weight_scale, where floating-point [${outs}, groups of a row of ${ins}] is needed`,
    );
  }
  const zeroRows = fields ? Math.ceil(outs / Math.floor(32 / bits)) : wordsOf(outs, bits);
  if (
    zeros &&
    !(zeros.type.name === 'I32' && zeros.shape[0] === zeroRows && zeros.shape[1] === groups && zeros.shape.length === 2)
  ) {
    return refuse(`has ${describe(zeros)} as weight_zero_point, where I32 [${zeroRows}, ${groups}] is needed`);
  }
  const sizes = said.map(({ groupSize: size }) => groupSizeOf(ins, groups, size, refuse, said.length > 1));
  const groupSize = sizes[0] ?? groupSizeOf(ins, groups, undefined, refuse);
  if (said.length > 1 && groups > 1 && !said.some(({ groupSize: size }) => size === groupSize)) {
    refuse(`has groups of ${groupSize}, of which config.json does not speak`);
  }
  const order = at('weight_g_idx');
  const groupOf = order && (await readGroupOf(source, order, ins, groupSize, refuse, signal));
  const parts = [packed, scale, ...(zeros ? [zeros] : [])];
  const stored = parts.reduce((sum, { begin, end }) => sum + 8 * (end - begin), 0);
  return {
    ...{ scheme: 'compressed-tensors', name: module, bare: false, shape: [outs, ins], stored: 'out-in', together: 32 },
    ...(groupOf ? { groupOf } : {}),
    entries: [packed, scale, ...[zeros, at('weight_shape'), order].flatMap((entry) => entry ?? [])],
    bias: biasOf(source, module, outs, refuse),
    storage: {
      ...{ nbits: bits, groupSize, axis: 1, packing: 'pack-quantized', metaDtype: scale.type.float },
      zeroPoint: zeros ? 'integer' : 'symmetric',
      // With zeros the library computes in the type of scales; without them in that of the model that is loaded.
      ...(zeros ? { computeDtype: scale.type.float } : {}),
      bitsPerWeight: stored / count,
    },
    ...{ packed, scale, zeros, bits, fields: fields && 32 % bits !== 0 },
  };

  function waysOf(
    entry: TensorEntry,
    [, cols]: readonly [number, number],
    only: ReadonlySet<number | undefined> | undefined,
  ) {
    const known = [4, 8, 2, 3, 6, 5, 7, 1].filter((one) => only === undefined || only.has(one));
    return known.flatMap((one) => [
      ...(wordsOf(cols, one) === width ? [{ bits: one, fields: false }] : []),
      ...(Math.ceil(cols / Math.floor(32 / one)) === entry.shape[1] ? [{ bits: one, fields: true }] : []),
    ]);
  }
}

/** What is read of some rows of a layer. */
export function partsOf(
  { packed, scale, zeros, bits, fields, shape, storage }: PackedLayer,
  chunk: RowChunk,
): RowParts {
  const [outs, ins] = shape;
  const { rows, first } = chunk;
  const groups = ins / storage.groupSize;
  const scales = scale.type.float!;
  const unpack = fields ? unpackFields : unpackStreams;
  const each = Math.floor(32 / bits);
  const wordsFor = (count: number) => (fields ? Math.ceil(count / each) : wordsOf(count, bits));
  // A chunk of 32 rows begins with a word of a bit stream; with whole codes in words it may begin inside of one.
  const from = fields ? Math.floor(first / each) : (first * bits) / 32;
  const height = fields ? Math.ceil((first + rows) / each) - from : wordsFor(rows);
  const before = fields ? first - from * each : 0;
  return {
    reads: [
      { entry: packed, ranges: rowsOf(chunk, packed.shape[1]!), size: 4 },
      { entry: scale, ranges: rowsOf(chunk, groups), size: DTYPES[scales].bytes },
      ...(zeros
        ? [{ entry: zeros, ranges: columnsOf(1, outs * groups, from * groups, height * groups), size: 4 }]
        : []),
    ],
    unpack([codeBytes, scaleBytes, zeroBytes], into, slot) {
      unpack(wordsIn(codeBytes!), rows, ins, bits, into.codes);
      widenBytes(scaleBytes!, scales, into.scale);
      if (zeroBytes === undefined) {
        into.zero.fill(2 ** (bits - 1));
        return;
      }
      const streams = slot.take('zero streams', Int32Array, height * groups);
      transpose(wordsIn(zeroBytes), height, groups, streams);
      const codes = slot.take('zero codes', Uint8Array, groups * (rows + before));
      unpack(streams, groups, rows + before, bits, codes);
      for (let row = 0; row < rows; row++) {
        for (let group = 0; group < groups; group++) {
          into.zero[row * groups + group] = codes[group * (rows + before) + row + before]!;
        }
      }
    },
  };
}
