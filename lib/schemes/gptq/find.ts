import { pathOfFile, type TensorEntry, type TensorSource } from '../../containers/container.js';
import { yieldIfDue } from '../../files/event-loop.js';
import { DTYPES } from '../../matrix/dtype.js';
import { saysGemv } from '../awq/find.js';
import { columnsOf, type RowChunk } from '../rows/chunks.js';
import { TOGETHER, unpackScales } from '../rows/columns.js';
import type { RowLayer, RowParts } from '../rows/read.js';
import {
  biasOf,
  bitsSaid,
  declaredOf,
  describe,
  groupSizeOf,
  isLike,
  readGroupOf,
  refusalOf,
  wordsIn,
} from '../rows/stored.js';
import { transpose, unpackStreams, wordsOf } from '../rows/streams.js';

/** A layer of GPTQ. */
export interface GptqLayer extends RowLayer {
  readonly packed: TensorEntry;
  readonly scale: TensorEntry;
  readonly zeros: TensorEntry;
  readonly bits: number;
  /** What stored zeros are short of: 1 in the first version of the format. */
  readonly offset: 0 | 1;
}

const PACKED = '.qweight';

/** Names of the tensors that hold codes: as many columns as scales have, which AWQ's have not. */
export function namesOfGptq({ entries }: Pick<TensorSource, 'entries'>): readonly string[] {
  return [...entries.values()]
    .filter(({ name, type, shape }) => {
      if (!name.endsWith(PACKED) || type.name !== 'I32' || shape.length !== 2) return false;
      const stem = name.slice(0, -PACKED.length);
      return entries.has(`${stem}.qzeros`) && entries.get(`${stem}.scales`)?.shape[1] === shape[1];
    })
    .map(({ name }) => name);
}

/** GPTQModel's bits in planes: zeros are those of the second version, and words those of the others where a word holds whole codes. */
const PLANES = 'gptq_p';

/** How stored zeros are to be read, as the configuration has it: without one, as the first version. */
function offsetOf(said: Readonly<Record<string, unknown>>): 0 | 1 {
  const method = said.quant_method;
  const packing = typeof said.packing_format === 'string' ? said.packing_format : '';
  // auto-round writes the second version under its own name, unless it says otherwise.
  if (method === 'auto-round' || method === 'intel/auto-round') return packing.endsWith('auto_gptq') ? 1 : 0;
  return formatsOf(said).some((format) => format === 'gptq_v2' || format === PLANES) ? 0 : 1;
}

const formatsOf = (said: Readonly<Record<string, unknown>>) => [said.checkpoint_format, said.format];

/** What loaders add to words of zeros of the first version, where these hold whole codes: a one to each. */
const ONES: Readonly<Record<number, number>> = { 2: 0x5555_5555, 4: 0x1111_1111, 8: 0x0101_0101 };

/**
 * Adds what stored zeros are short of. GPTQModel takes ones from words, and adds them to words: a zero of 0 borrows from the next, and gets
 * back what it borrowed.
 */
function addOnes(words: Int32Array, one: number): Int32Array {
  return words.map((word) => word + one);
}

const isMembers = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && Object.keys(value).length > 0;

/** Every such layer, in file order. Trusts nothing. @throws {HqqError} `ERR_CHECKPOINT_FORMAT` */
export async function findGptq(source: TensorSource, signal?: AbortSignal): Promise<readonly GptqLayer[]> {
  const layers: GptqLayer[] = [];
  const said = declaredOf(source.envelope.config);
  if (saysGemv(said)) return [];
  for (const name of namesOfGptq(source)) {
    layers.push(await readGptq(source, name.slice(0, -PACKED.length), said, signal));
    await yieldIfDue();
  }
  return layers;
}

async function readGptq(
  source: TensorSource,
  module: string,
  said: Readonly<Record<string, unknown>>,
  signal: AbortSignal | undefined,
): Promise<GptqLayer> {
  const at = (key: string) => source.entries.get(`${module}.${key}`);
  const [packed, scale, zeros] = [at('qweight')!, at('scales')!, at('qzeros')!];
  const refuse = refusalOf(pathOfFile(source, packed), module);
  const [height, outs] = packed.shape as [number, number];
  const groups = scale.shape[0] ?? 0;
  if (scale.type.float === undefined || scale.shape.length !== 2 || groups === 0 || outs === 0 || height === 0) {
    return refuse(`has ${describe(scale)} as scales, where floating-point [groups, ${outs}] is needed`);
  }
  const order = at('g_idx');
  // Some tools say of layers by name what others are not.
  const varies = isMembers(said.dynamic) || isMembers(said.extra_config);
  const only = varies ? undefined : bitsSaid(said.bits, refuse);
  const planes = formatsOf(said).includes(PLANES);
  const ways = (planes ? [4, 8, 2] : [4, 8, 2, 3]).filter(
    (bits) => isLike(zeros, 'I32', [groups, wordsOf(outs, bits)]) && Number.isInteger((height * 32) / bits),
  );
  const bits =
    (only === undefined && order ? ways.find((one) => (height * 32) / one === order.shape[0]) : undefined) ??
    ways.find((one) => one === (only ?? said.bits)) ??
    (only === undefined ? ways[0] : undefined);
  if (bits === undefined) {
    const what = only === undefined ? '2, 3, 4 or 8' : String(only);
    if (planes) {
      refuse(
        `is of GPTQ in planes of bits (gptq_p) with ${what} bits, where 2, 4 or 8 are needed: the order of other codes is not read`,
      );
    }
    return refuse(
      `has ${describe(packed)} as qweight and ${describe(zeros)} as qzeros, which hold no codes and zeros of ${what} bits for ${groups} groups`,
    );
  }
  const ins = (height * 32) / bits;
  const groupSize = groupSizeOf(ins, groups, said.group_size, refuse, varies);
  const groupOf = order && (await readGroupOf(source, order, ins, groupSize, refuse, signal));
  const parts = [packed, scale, zeros, ...(order ? [order] : [])];
  const stored = parts.reduce((sum, { begin, end }) => sum + 8 * (end - begin), 0);
  return {
    ...{ scheme: 'gptq', name: module, bare: false, shape: [outs, ins], stored: 'out-in', together: TOGETHER },
    ...(groupOf ? { groupOf } : {}),
    entries: [packed, ...parts.slice(1)],
    bias: biasOf(source, module, outs, refuse),
    storage: {
      ...{ nbits: bits, groupSize, axis: 1, packing: 'gptq', metaDtype: scale.type.float },
      zeroPoint: said.sym === true ? 'symmetric' : 'integer',
      computeDtype: scale.type.float!,
      bitsPerWeight: stored / (outs * ins),
    },
    ...{ packed, scale, zeros, bits, offset: offsetOf(said) },
  };
}

/** What is read of some rows of a layer. */
export function partsOf(layer: GptqLayer, { first, rows }: RowChunk): RowParts {
  const { packed, scale, zeros, bits, offset, shape, storage } = layer;
  const [outs, ins] = shape;
  const groups = ins / storage.groupSize;
  const height = wordsOf(ins, bits);
  const width = wordsOf(rows, bits);
  const dtype = scale.type.float!;
  return {
    reads: [
      { entry: packed, ranges: columnsOf(height, outs, first, rows), size: 4 },
      { entry: scale, ranges: columnsOf(groups, outs, first, rows), size: DTYPES[dtype].bytes },
      { entry: zeros, ranges: columnsOf(groups, wordsOf(outs, bits), (first * bits) / 32, width), size: 4 },
    ],
    unpack([codeBytes, scaleBytes, zeroBytes], into, slot) {
      const streams = slot.take('streams', Int32Array, rows * height);
      transpose(wordsIn(codeBytes!), height, rows, streams);
      unpackStreams(streams, rows, ins, bits, into.codes);
      unpackScales(scaleBytes!, dtype, rows, groups, into.scale, slot);
      const codes = slot.take('zero codes', Uint8Array, groups * rows);
      const one = offset === 0 ? undefined : ONES[bits];
      const words = wordsIn(zeroBytes!);
      unpackStreams(one === undefined ? words : addOnes(words, one), groups, rows, bits, codes);
      const more = one === undefined ? offset : 0;
      const mask = 2 ** bits - 1;
      for (let row = 0; row < rows; row++) {
        for (let group = 0; group < groups; group++) {
          into.zero[row * groups + group] = (codes[group * rows + row]! + more) & mask;
        }
      }
    },
  };
}
