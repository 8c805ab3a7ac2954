import { pathOfFile, type TensorEntry, type TensorSource } from '../../containers/container.js';
import { yieldIfDue } from '../../files/event-loop.js';
import { DTYPES } from '../../matrix/dtype.js';
import { show } from '../../messages/errors.js';
import { columnsOf, type RowChunk } from '../rows/chunks.js';
import { TOGETHER, unpackScales } from '../rows/columns.js';
import type { RowLayer, RowParts } from '../rows/read.js';
import { biasOf, bitsSaid, declaredOf, describe, groupSizeOf, isLike, refusalOf, wordsIn } from '../rows/stored.js';
import { FIELDS, GEMM, unpackColumns } from './order.js';

/** A layer of AWQ: `gemm`, 4 bits. */
export interface AwqLayer extends RowLayer {
  readonly packed: TensorEntry;
  readonly scale: TensorEntry;
  readonly zeros: TensorEntry;
}

const PACKED = '.qweight';

/** Names of the tensors that hold codes: an eighth of the columns of scales. */
export function namesOfAwq({ entries }: Pick<TensorSource, 'entries'>): readonly string[] {
  return [...entries.values()]
    .filter(({ name, type, shape }) => {
      if (!name.endsWith(PACKED) || type.name !== 'I32' || shape.length !== 2) return false;
      const stem = name.slice(0, -PACKED.length);
      const scales = entries.get(`${stem}.scales`);
      return entries.get(`${stem}.qzeros`)?.type.name === 'I32' && scales?.shape[1] === FIELDS * shape[1]!;
    })
    .map(({ name }) => name);
}

/** Every such layer, in file order. Trusts nothing. @throws {HqqError} `ERR_CHECKPOINT_FORMAT` */
export async function findAwq(source: TensorSource): Promise<readonly AwqLayer[]> {
  const layers: AwqLayer[] = [];
  const said = declaredOf(source.envelope.config);
  for (const name of namesOfAwq(source)) {
    layers.push(readAwq(source, name.slice(0, -PACKED.length), said));
    await yieldIfDue();
  }
  return layers;
}

function readAwq(source: TensorSource, module: string, said: Readonly<Record<string, unknown>>): AwqLayer {
  const at = (key: string) => source.entries.get(`${module}.${key}`)!;
  const [packed, scale, zeros] = [at('qweight'), at('scales'), at('qzeros')];
  const refuse = refusalOf(pathOfFile(source, packed), module);
  const bits = bitsSaid(said.bits ?? said.w_bit, refuse);
  if (bits !== undefined && bits !== 4) refuse(`is of AWQ with ${bits} bits, where 4 are needed`);
  const version = said.version;
  if (typeof version === 'string' && version.toLowerCase() !== 'gemm') {
    refuse(`is of AWQ as ${show(version)}, where gemm is needed: other kernels have another order of codes`);
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
  const stored = [packed, scale, zeros].reduce((sum, { begin, end }) => sum + 8 * (end - begin), 0);
  return {
    ...{ scheme: 'awq', name: module, bare: false, shape: [outs, ins], stored: 'out-in', together: TOGETHER },
    entries: [packed, scale, zeros],
    bias: biasOf(source, module, outs, refuse),
    storage: {
      ...{ nbits: 4, groupSize, axis: 1, packing: 'awq-gemm', metaDtype: scale.type.float! },
      zeroPoint: 'integer',
      computeDtype: scale.type.float!,
      bitsPerWeight: stored / (outs * ins),
    },
    ...{ packed, scale, zeros },
  };
}

/** What is read of some rows of a layer. */
export function partsOf({ packed, scale, zeros, shape, storage }: AwqLayer, { first, rows }: RowChunk): RowParts {
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
