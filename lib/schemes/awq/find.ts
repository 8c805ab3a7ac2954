import { widenBytes } from '../../compute/floats.js';
import { pathOfFile, type TensorEntry, type TensorSource } from '../../containers/container.js';
import { yieldIfDue } from '../../files/event-loop.js';
import { DTYPES } from '../../matrix/dtype.js';
import { show } from '../../messages/errors.js';
import { columnsOf, type RowChunk, rowsOf } from '../rows/chunks.js';
import { TOGETHER, unpackScales } from '../rows/columns.js';
import type { RowLayer, RowParts } from '../rows/read.js';
import {
  biasOf,
  bitsSaid,
  declaredOf,
  describe,
  groupSizeOf,
  isLike,
  type Refuse,
  refusalOf,
  wordsIn,
} from '../rows/stored.js';
import { unpackStreams } from '../rows/streams.js';
import { FIELDS, GEMM, unpackColumns } from './order.js';

/** A layer of AWQ, 4 bits: as `gemm` has it, or as `gemv`, where it lies [out, in]. */
export interface AwqLayer extends RowLayer {
  readonly packed: TensorEntry;
  readonly scale: TensorEntry;
  readonly zeros: TensorEntry;
  readonly version: 'gemm' | 'gemv';
}

const PACKED = '.qweight';

type Model = Pick<TensorSource, 'entries' | 'envelope'>;

/** Names of the tensors that hold codes. */
export const namesOfAwq = (source: Model): readonly string[] =>
  saysGemv(declaredOf(source.envelope.config)) ? namesOfGemv(source) : namesOfGemm(source);

/** An eighth of the columns of scales. */
function namesOfGemm({ entries }: Model): readonly string[] {
  return [...entries.values()]
    .filter(({ name, type, shape }) => {
      if (!name.endsWith(PACKED) || type.name !== 'I32' || shape.length !== 2) return false;
      const stem = name.slice(0, -PACKED.length);
      const scales = entries.get(`${stem}.scales`);
      return entries.get(`${stem}.qzeros`)?.type.name === 'I32' && scales?.shape[1] === FIELDS * shape[1]!;
    })
    .map(({ name }) => name);
}

type Said = Readonly<Record<string, unknown>>;

/** Whether a configuration speaks of `gemv`: shapes alone might be those of GPTQ, too. */
export const saysGemv = ({ version }: Said): boolean => typeof version === 'string' && version.toLowerCase() === 'gemv';

/** Names of what may be the codes of `gemv`: as many rows as scales and zeros have. */
function namesOfGemv({ entries }: Model): readonly string[] {
  return [...entries.values()]
    .filter(({ name, type, shape }) => {
      if (!name.endsWith(PACKED) || type.name !== 'I32' || shape.length !== 2) return false;
      const stem = name.slice(0, -PACKED.length);
      const [scales, zeros] = [entries.get(`${stem}.scales`), entries.get(`${stem}.qzeros`)];
      return zeros?.type.name === 'I32' && scales?.shape[0] === shape[0] && zeros.shape[0] === shape[0];
    })
    .map(({ name }) => name);
}

/** Every such layer, in file order. Trusts nothing. @throws {HqqError} `ERR_CHECKPOINT_FORMAT` */
export async function findAwq(source: TensorSource): Promise<readonly AwqLayer[]> {
  const layers: AwqLayer[] = [];
  const said = declaredOf(source.envelope.config);
  const read = saysGemv(said) ? readGemv : readGemm;
  for (const name of namesOfAwq(source)) {
    const module = name.slice(0, -PACKED.length);
    const at = (key: string) => source.entries.get(`${module}.${key}`)!;
    const parts = { packed: at('qweight'), scale: at('scales'), zeros: at('qzeros') };
    const refuse = refusalOf(pathOfFile(source, parts.packed), module);
    const bits = bitsSaid(said.bits ?? said.w_bit, refuse);
    if (bits !== undefined && bits !== 4) refuse(`is of AWQ with ${bits} bits, where 4 are needed`);
    layers.push(read(source, { module, ...parts }, said, refuse));
    await yieldIfDue();
  }
  return layers;
}

interface Parts extends Pick<AwqLayer, 'packed' | 'scale' | 'zeros'> {
  readonly module: string;
}

function layerOf(
  source: TensorSource,
  { module, packed, scale, zeros }: Parts,
  { shape, groupSize, version }: Pick<AwqLayer, 'shape' | 'version'> & { readonly groupSize: number },
  refuse: Refuse,
): AwqLayer {
  const [outs, ins] = shape;
  const stored = [packed, scale, zeros].reduce((sum, { begin, end }) => sum + 8 * (end - begin), 0);
  return {
    ...{ scheme: 'awq', name: module, bare: false, shape, stored: 'out-in', version },
    together: version === 'gemm' ? TOGETHER : 1,
    entries: [packed, scale, zeros],
    bias: biasOf(source, module, outs, refuse),
    storage: {
      ...{ nbits: 4, groupSize, axis: 1, packing: `awq-${version}`, metaDtype: scale.type.float! },
      zeroPoint: 'integer',
      computeDtype: scale.type.float!,
      bitsPerWeight: stored / (outs * ins),
    },
    ...{ packed, scale, zeros },
  };
}

function readGemm(source: TensorSource, parts: Parts, said: Said, refuse: Refuse): AwqLayer {
  const { packed, scale, zeros } = parts;
  const version = said.version;
  if (typeof version === 'string' && version.toLowerCase() !== 'gemm') {
    refuse(`is of AWQ as ${show(version)}, where gemm or gemv is needed: other kernels have another order of codes`);
  }
  const [ins, words] = packed.shape as [number, number];
  const outs = words * FIELDS;
  const groups = scale.shape[0]!;
  if (scale.type.float === undefined || scale.shape.length !== 2 || groups === 0 || outs === 0 || ins === 0) {
    refuse(`has ${describe(scale)} as scales, where floating-point [groups of ${ins}, ${outs}] is needed`);
  }
  const groupSize = groupSizeOf(ins, groups, said.group_size ?? said.q_group_size, refuse);
  if (!isLike(zeros, 'I32', [groups, words])) {
    refuse(`has ${describe(zeros)} as qzeros, where I32 [${groups}, ${words}] is needed`);
  }
  return layerOf(source, parts, { shape: [outs, ins], groupSize, version: 'gemm' }, refuse);
}

/** Scales and zeros of a row stand in whole words of zeros, and more of them where groups are small: what is no group's is left out. */
function readGemv(source: TensorSource, parts: Parts, said: Said, refuse: Refuse): AwqLayer {
  const { packed, scale, zeros } = parts;
  const [outs, words] = packed.shape as [number, number];
  const ins = words * FIELDS;
  const width = zeros.shape[1] ?? 0;
  if (scale.type.float === undefined || !isLike(scale, scale.type.name, [outs, width * FIELDS]) || outs * ins === 0) {
    refuse(`has ${describe(scale)} as scales, where floating-point [${outs}, ${width * FIELDS}] is needed`);
  }
  if (!isLike(zeros, 'I32', [outs, width])) {
    refuse(`has ${describe(zeros)} as qzeros, where I32 [${outs}, groups / ${FIELDS}] is needed`);
  }
  const given = said.group_size ?? said.q_group_size;
  const size = given === -1 ? ins : given;
  if (
    typeof size !== 'number' ||
    !Number.isInteger(size) ||
    size <= 0 ||
    ins % size !== 0 ||
    ins / size > width * FIELDS
  ) {
    return refuse(
      `has ${describe(scale)} as scales, which are those of no groups of ${show(given)} input features of ${ins}, as config.json says`,
    );
  }
  return layerOf(source, parts, { shape: [outs, ins], groupSize: size, version: 'gemv' }, refuse);
}

/** What is read of some rows of a layer. */
export function partsOf(layer: AwqLayer, chunk: RowChunk): RowParts {
  if (layer.version === 'gemv') return partsOfGemv(layer, chunk);
  const { packed, scale, zeros, shape, storage } = layer;
  const { first, rows } = chunk;
  const [outs, ins] = shape;
  const groups = ins / storage.groupSize;
  const dtype = scale.type.float!;
  const columns = (height: number) => columnsOf(height, outs / FIELDS, first / FIELDS, rows / FIELDS);
  return {
    reads: [
      { entry: packed, ranges: columns(ins), size: 4 },
      { entry: scale, ranges: columnsOf(groups, outs, first, rows), size: DTYPES[dtype].bytes },
      { entry: zeros, ranges: columns(groups), size: 4 },
    ],
    unpack([codeBytes, scaleBytes, zeroBytes], into, slot) {
      unpackColumns(wordsIn(codeBytes!), rows, ins, GEMM, into.codes);
      unpackScales(scaleBytes!, dtype, rows, groups, into.scale, slot);
      const codes = slot.take('zero codes', Uint8Array, rows * groups);
      unpackColumns(wordsIn(zeroBytes!), rows, groups, GEMM, codes);
      into.zero.set(codes);
    },
  };
}

function partsOfGemv({ packed, scale, zeros, shape: [, ins], storage }: AwqLayer, chunk: RowChunk): RowParts {
  const { rows } = chunk;
  const groups = ins / storage.groupSize;
  const dtype = scale.type.float!;
  const wide = scale.shape[1]!;
  return {
    reads: [
      { entry: packed, ranges: rowsOf(chunk, ins / FIELDS), size: 4 },
      { entry: scale, ranges: rowsOf(chunk, wide), size: DTYPES[dtype].bytes },
      { entry: zeros, ranges: rowsOf(chunk, wide / FIELDS), size: 4 },
    ],
    unpack([codeBytes, scaleBytes, zeroBytes], into, slot) {
      unpackStreams(wordsIn(codeBytes!), rows, ins, 4, into.codes);
      const scales = slot.take('wide scale', Float32Array, rows * wide);
      widenBytes(scaleBytes!, dtype, scales);
      const codes = slot.take('zero codes', Uint8Array, rows * wide);
      unpackStreams(wordsIn(zeroBytes!), rows, wide, 4, codes);
      for (let row = 0; row < rows; row++) {
        into.scale.set(scales.subarray(row * wide, row * wide + groups), row * groups);
        into.zero.set(codes.subarray(row * wide, row * wide + groups), row * groups);
      }
    },
  };
}
