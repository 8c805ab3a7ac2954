import type { TensorEntry, TensorSource } from '../../lib/containers/container.js';
import { countOf, eachOf } from '../../lib/containers/range.js';
import { Scratch } from '../../lib/containers/scratch.js';
import { STORED_TYPES, storedType } from '../../lib/containers/stored-types.js';
import { type AwqLayer, findAwq, partsOf as partsOfAwq } from '../../lib/schemes/awq/find.js';
import { findPacked, type PackedLayer, partsOf as partsOfPacked } from '../../lib/schemes/compressed-tensors/find.js';
import { findGptq, type GptqLayer, partsOf as partsOfGptq } from '../../lib/schemes/gptq/find.js';
import type { RowChunk } from '../../lib/schemes/rows/chunks.js';
import { layerRows, type RowLayer, type RowParts } from '../../lib/schemes/rows/read.js';
import { findUnpacked, partsOf as partsOfUnpacked, type UnpackedLayer } from '../../lib/schemes/torchao/find.js';
import { attempt, attemptLater, demand, type Target } from './outcome.js';
import { Random } from './random.js';

// Layers of the formats of engines as they lie in memory: their tensors, of a right shape or one near it, and what config.json says of
// them, true or not. What is accepted must lie in its tensors, and every code in its bits.

const REFUSALS = ['ERR_CHECKPOINT_FORMAT'] as const;

type Parts = (layer: never, chunk: RowChunk) => RowParts;
type Find = (source: TensorSource) => Promise<readonly RowLayer[]>;

interface Format {
  readonly find: Find;
  readonly parts: Parts;
  /** Tensors of a layer, by their last names. */
  tensors(
    outs: number,
    ins: number,
    groups: number,
    bits: number,
  ): Readonly<Record<string, readonly [string, readonly number[]]>>;
  config(bits: number, groupSize: number): unknown;
}

const words = (count: number, bits: number) => Math.ceil((count * bits) / 32);

const FORMATS: readonly Format[] = [
  {
    find: findPacked,
    parts: partsOfPacked as (layer: PackedLayer, chunk: RowChunk) => RowParts,
    tensors: (outs, ins, groups, bits) => ({
      weight_packed: ['I32', [outs, words(ins, bits)]],
      weight_scale: ['F16', [outs, groups]],
      weight_zero_point: ['I32', [words(outs, bits), groups]],
      weight_shape: ['I64', [2]],
      weight_g_idx: ['I32', [ins]],
    }),
    config: (bits, groupSize) => ({
      config_groups: { group_0: { weights: { num_bits: bits, group_size: groupSize }, targets: ['Linear'] } },
    }),
  },
  {
    find: findAwq,
    parts: partsOfAwq as (layer: AwqLayer, chunk: RowChunk) => RowParts,
    tensors: (outs, ins, groups) => ({
      qweight: ['I32', [ins, outs / 8]],
      qzeros: ['I32', [groups, outs / 8]],
      scales: ['F16', [groups, outs]],
    }),
    config: (bits, groupSize) => ({ quant_method: 'awq', bits, group_size: groupSize, version: 'gemm' }),
  },
  {
    find: findGptq,
    parts: partsOfGptq as (layer: GptqLayer, chunk: RowChunk) => RowParts,
    tensors: (outs, ins, groups, bits) => ({
      qweight: ['I32', [words(ins, bits), outs]],
      qzeros: ['I32', [groups, words(outs, bits)]],
      scales: ['F16', [groups, outs]],
      g_idx: ['I32', [ins]],
    }),
    config: (bits, groupSize) => ({ quant_method: 'gptq', bits, group_size: groupSize, sym: true, format: 'gptq' }),
  },
  {
    find: findUnpacked,
    parts: partsOfUnpacked as (layer: UnpackedLayer, chunk: RowChunk) => RowParts,
    tensors: (outs, ins, groups) => ({
      _weight_qdata: ['I8', [outs, ins]],
      _weight_scale: ['F32', [outs, groups]],
      _weight_zero_point: ['I8', [outs, groups]],
    }),
    config: (bits) => ({ quant_method: 'torchao', quant_type: { default: { _data: `torch.int${bits}` } } }),
  },
];

/** What a configuration may say in place of a number, or of anything. */
const LIES: readonly unknown[] = [
  ...[
    0,
    -1,
    -5,
    0.5,
    1,
    3,
    4,
    5,
    16,
    32,
    1e9,
    1e300,
    2 ** 53,
    null,
    true,
    false,
    '',
    '4',
    'gptq_v2',
    'gemv',
    '\u202e\n\u0000',
  ],
  ...[[], {}, [4], { toString: 1 }, { bits: { bits: 4 } }, 'x'.repeat(5000), { dynamic: { '.*': {} } }, [[[[[[[]]]]]]]],
  JSON.parse('{"__proto__": {"bits": 4}}'),
];
const TYPES = [...STORED_TYPES.keys()];

/** A value, with a member of it, at any depth, replaced, taken out or added. */
function lie(random: Random, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || random.chance(10)) return random.pick(LIES);
  const members = Object.entries(value);
  const at = random.below(members.length + 1);
  if (at === members.length)
    members.push([random.pick(['bits', 'dynamic', 'extra_config', 'format', 'x']), random.pick(LIES)]);
  else if (random.chance(20)) members.splice(at, 1);
  else members[at] = [members[at]![0], lie(random, members[at]![1])];
  return Object.fromEntries(members);
}

function bend(random: Random, shape: readonly number[]): readonly number[] {
  const sizes = [...shape];
  const at = random.below(sizes.length);
  switch (random.below(4)) {
    case 0:
      sizes[at] = random.pick([0, 1, 2, 3, 7, 8, 16, 64]);
      break;
    case 1:
      sizes[at]! += random.below(3) - 1;
      break;
    case 2:
      sizes.splice(at, 1);
      break;
    default:
      sizes.push(random.pick([1, 2]));
  }
  return sizes.map((size) => Math.max(0, Math.floor(size)));
}

/** A source of tensors that are nowhere but here: bytes of each are random, but for those that hold shapes and orders. */
function makeSource(random: Random, format: Format): TensorSource {
  const bits = random.pick([4, 4, 8, 2, 3]);
  const groupSize = random.pick([8, 16, 32, 64]);
  const groups = 1 + random.below(3);
  const [outs, ins] = [random.pick([8, 32, 64]), groups * groupSize];
  const entries = new Map<string, TensorEntry>();
  const bytes = new Map<string, Uint8Array>();
  let position = 0;
  for (const [key, [type, shape]] of Object.entries(format.tensors(outs, ins, groups, bits))) {
    if (/zero_point|g_idx/.test(key) ? random.chance(50) : random.chance(2)) continue;
    const stored = storedType(random.chance(4) ? random.pick(TYPES) : type);
    const own = random.chance(8) ? bend(random, shape) : shape;
    const count = own.reduce((product, size) => product * size, 1);
    const size = Math.ceil(count / stored.blockElements) * stored.blockBytes;
    const name = `x.${key}`;
    const data = new Uint8Array(size);
    for (let i = 0; i < size; i += 1 + random.below(9)) data[i] = random.below(256);
    if (key === 'weight_shape' && size >= 16) {
      const numbers = new BigInt64Array(data.buffer, 0, 2);
      [outs, ins].forEach(
        (n, i) => (numbers[i] = BigInt(random.chance(5) ? random.pick([0, -1, n + 1, 2 ** 40, 2 ** 53]) : n)),
      );
    }
    if (key.endsWith('g_idx') && size >= 4) {
      const numbers = new Int32Array(data.buffer, 0, Math.floor(size / 4));
      const stride = random.chance(50) ? 1 : groupSize;
      numbers.forEach((_, i) => (numbers[i] = stride === 1 ? Math.floor(i / groupSize) : i % groups));
      if (random.chance(20)) numbers[random.below(numbers.length)] = random.pick([-1, groups, 0, 2 ** 31 - 1]);
    }
    entries.set(name, { name, type: stored, shape: own, file: 'x', begin: position, end: position + size });
    bytes.set(name, data);
    position += size;
  }
  let config: unknown = { quantization_config: format.config(bits, groupSize) };
  for (let times = random.below(4); times > 0; times--) config = lie(random, config);
  const whole = new Uint8Array(position);
  for (const [name, data] of bytes) whole.set(data, entries.get(name)!.begin);
  const copy = (from: number, into: Uint8Array) => {
    demand(from >= 0 && from + into.length <= position, 'reads beside the file');
    into.set(whole.subarray(from, from + into.length));
  };
  const said = new Map([
    ['x.weight', JSON.stringify(random.chance(80) ? { _type: 'IntxUnpackedToInt8Tensor' } : lie(random, {}))],
  ]);
  return {
    ...{ container: 'safetensors', path: 'x', kind: 'file', files: [], entries },
    envelope: { config: typeof config === 'object' && config !== null ? config : undefined, metadata: () => said },
    read: async (entry: TensorEntry, at: number, into: Uint8Array) => copy(entry.begin + at, into),
    readSpan: async (_: string, at: number, into: Uint8Array) => copy(at, into),
  } as unknown as TensorSource;
}

/** Reads all chunks of a layer as `decodeRows` would. */
async function readLayer(source: TensorSource, layer: RowLayer, parts: Parts): Promise<void> {
  const { shape, storage } = layer;
  const groups = shape[1] / storage.groupSize;
  demand(Number.isInteger(groups) && groups >= 1, `${groups} groups`);
  let rows = 0;
  for (const chunk of layerRows(layer)) {
    rows += chunk.rows;
    const { reads, unpack } = parts(layer as never, chunk);
    const read: Uint8Array[] = [];
    for (const { entry, ranges, size } of reads) {
      const into = new Uint8Array(countOf(ranges) * size);
      let at = 0;
      for (const range of eachOf(ranges)) {
        const end = (range.at + range.count) * size;
        demand(range.at >= 0 && end <= entry.end - entry.begin, `${entry.name} is read to byte ${end}`);
        await source.read(entry, range.at * size, into.subarray(at, at + range.count * size));
        at += range.count * size;
      }
      read.push(into);
    }
    const into = {
      codes: new Uint8Array(chunk.count).fill(255),
      scale: new Float32Array(chunk.rows * groups),
      zero: new Float32Array(chunk.rows * groups),
    };
    const done = attempt(REFUSALS, () => (unpack(read, into, new Scratch()), true));
    if (done)
      demand(storage.nbits === 8 || into.codes.every((code) => code < 2 ** storage.nbits), 'codes of more bits');
  }
  demand(rows === shape[0], `${rows} rows of ${shape[0]}`);
}

export const engines: Target = {
  name: 'engines',
  quick: 5000,
  full: 1_000_000,
  async tryOne(seed, input) {
    const random = new Random(seed, input);
    const format = random.pick(FORMATS);
    const source = makeSource(random, format);
    const layers = await attemptLater(REFUSALS, () => format.find(source));
    for (const layer of layers ?? []) await readLayer(source, layer, format.parts);
    return layers !== undefined && layers.length > 0;
  },
};
