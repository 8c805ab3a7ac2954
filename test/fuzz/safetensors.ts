import { type Header, headerLength, parseHeader } from '../../lib/containers/safetensors/header.js';
import { attempt, demand, type Target } from './outcome.js';
import { damage, HOSTILE_NUMBERS, Random } from './random.js';

// Headers of safetensors files, sound and damaged. What is accepted must say what a plain reading of its JSON says, with every
// byte of the file in exactly one tensor; what is refused must not be a sound file.

const BITS: Readonly<Record<string, number>> = {
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
  F32: 32,
  I32: 32,
  U32: 32,
  F16: 16,
  BF16: 16,
  I16: 16,
  U16: 16,
  I8: 8,
  U8: 8,
  BOOL: 8,
  F8_E4M3: 8,
  F8_E5M2: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  F6_E2M3: 6,
  F6_E3M2: 6,
  F4: 4,
};
const DTYPES = Object.keys(BITS);
const NAMES = [
  'a',
  'model.layers.0.mlp.up_proj.weight',
  'é',
  '__proto__',
  'constructor',
  'x"y',
  '\u0001',
  'a b',
  '😀',
  'lm_head.W_q',
];

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

interface Described {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}

/** A sound file, most often. */
function makeFile(random: Random): { json: string; data: number } {
  const count = random.below(5);
  let offset = 0;
  const entries: [string, string][] = [];
  for (let i = 0; i < count; i++) {
    const dtype = random.pick(DTYPES);
    const shape = Array.from({ length: random.below(4) }, () => random.pick([0, 1, 2, 3, 4, 8]));
    if (shape.length === 0 && BITS[dtype]! < 8) shape.push(8);
    const bytes = Math.ceil((shape.reduce((a, b) => a * b, 1) * BITS[dtype]!) / 8);
    const name = random.chance(30) ? random.pick(NAMES) : `t${i}`;
    const end = offset + bytes;
    const members = [`"dtype":"${dtype}"`, `"shape":[${shape.join(',')}]`, `"data_offsets":[${offset},${end}]`];
    if (random.chance(10)) members.reverse();
    if (random.chance(3)) members.splice(random.below(3), 1);
    if (random.chance(3)) members.push(random.pick(members));
    if (random.chance(3))
      members.push(`"${random.pick(NAMES).replaceAll(/["\u0001]/g, '')}":${random.pick(HOSTILE_NUMBERS)}`);
    entries.push([JSON.stringify(name), `{${members.join(random.chance(10) ? ' , ' : ',')}}`]);
    offset = end;
  }
  if (random.chance(20)) entries.reverse();
  if (random.chance(30)) entries.unshift(['"__metadata__"', random.chance(80) ? '{"format":"pt"}' : '{"format":1}']);
  const body = entries.map(([name, value]) => `${name}:${value}`).join(',');
  return { json: `{${body}}${' '.repeat(random.below(9))}`, data: offset };
}

function makeInput(random: Random): Buffer {
  const { json, data } = makeFile(random);
  let text = Buffer.from(json);
  if (random.chance(60)) text = Buffer.from(damage(random, text));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(text.length));
  if (random.chance(5)) prefix[random.below(8)] = random.below(256);
  const size = random.chance(8) ? random.below(data + 16) : data;
  const file = Buffer.concat([prefix, text, Buffer.alloc(size)]);
  return random.chance(3) ? file.subarray(0, random.below(file.length + 1)) : file;
}

/** Whether JSON text, parsed and printed again, is the same but for white space: no escape, key or number has two readings. */
function isPlain(text: string, value: unknown): boolean {
  return JSON.stringify(value) === text.replaceAll(/("(?:[^"\\]|\\.)*")|[ \n\r\t]+/g, '$1');
}

/** A second opinion, which shares nothing with the reader: the tensors in file order, or undefined if it has no opinion. */
function secondOpinion(file: Buffer): 'refuse' | 'unsure' | ReadonlyMap<string, Described> {
  if (file.length < 8) return 'refuse';
  const length = file.readBigUInt64LE(0);
  if (length > BigInt(file.length - 8)) return 'refuse';
  const dataStart = 8 + Number(length);
  let value: unknown;
  let text: string;
  try {
    text = UTF8.decode(file.subarray(8, dataStart));
    value = JSON.parse(text);
  } catch {
    return 'refuse';
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'refuse';
  const sound = isSound(value as Record<string, Described>, file.length - dataStart);
  if (!sound) return 'refuse';
  // White space may begin no header, and some spellings are refused that JSON.parse takes; so are lone surrogates.
  return text.startsWith('{') && isPlain(text, value) && !/\\ud[89a-f]/i.test(text)
    ? new Map(Object.entries(value as Record<string, Described>).filter(([name]) => name !== '__metadata__'))
    : 'unsure';
}

function isSound(value: Record<string, Described>, dataSize: number): boolean {
  const spans: [bigint, bigint][] = [];
  for (const [name, entry] of Object.entries(value)) {
    if (typeof entry !== 'object' || entry === null || Array.isArray(entry) || name === '') return false;
    if (name === '__metadata__') {
      if (!Object.values(entry).every((text) => typeof text === 'string')) return false;
      continue;
    }
    if (Object.keys(entry).sort().join() !== 'data_offsets,dtype,shape') return false;
    const { dtype, shape, data_offsets: offsets } = entry;
    const counts = (list: unknown): list is number[] =>
      Array.isArray(list) && list.every((n) => Number.isSafeInteger(n) && n >= 0 && !Object.is(n, -0));
    if (typeof dtype !== 'string' || !Object.hasOwn(BITS, dtype) || !counts(shape) || !counts(offsets)) return false;
    if (offsets.length !== 2 || shape.length > 64) return false;
    const [begin, end] = [BigInt(offsets[0]!), BigInt(offsets[1]!)];
    const bits = shape.reduce((product, size) => product * BigInt(size), BigInt(BITS[dtype]!));
    const widest = shape.reduce((product, size) => product * BigInt(size || 1), BigInt(BITS[dtype]!));
    if (widest > 2n ** 53n - 1n || bits % 8n !== 0n || bits / 8n !== end - begin) return false;
    spans.push([begin, end]);
  }
  spans.sort((a, b) => Number(a[0] - b[0] || a[1] - b[1]));
  let position = 0n;
  for (const [begin, end] of spans) {
    if (begin !== position) return false;
    position = end;
  }
  return position === BigInt(dataSize);
}

function read(file: Buffer): Header {
  const source = { file: 'x.safetensors', fileSize: file.length };
  const length = headerLength(file.subarray(0, 8), source);
  return parseHeader(file.subarray(8, 8 + length), source);
}

/** What was accepted agrees with the second opinion and covers the file. */
function check(file: Buffer, { tensors }: Header, opinion: ReturnType<typeof secondOpinion>): void {
  demand(opinion !== 'refuse', 'accepted what breaks the format');
  let position = 8 + Number(file.readBigUInt64LE(0));
  const dataStart = position;
  for (const [name, { begin, end, name: own }] of tensors) {
    demand(name === own && begin === position && end >= begin, `tensor ${name} is not where the one before it ends`);
    position = end;
  }
  demand(position === file.length, 'the tensors are not the whole file');
  if (opinion === 'unsure') return;
  demand(opinion.size === tensors.size, 'another number of tensors');
  for (const [
    name,
    {
      dtype,
      shape,
      data_offsets: [begin, end],
    },
  ] of opinion) {
    const got = tensors.get(name);
    demand(
      got !== undefined && got.type.name === dtype && got.shape.join() === shape.join(),
      `tensor ${name} is another one`,
    );
    demand(got.begin === dataStart + begin && got.end === dataStart + end, `tensor ${name} is elsewhere`);
  }
}

export const safetensors: Target = {
  name: 'safetensors',
  quick: 50_000,
  full: 5_000_000,
  tryOne(seed, input) {
    const file = makeInput(new Random(seed, input));
    const header = attempt(['ERR_CHECKPOINT_FORMAT'], () => read(file));
    const opinion = secondOpinion(file);
    if (header) check(file, header, opinion);
    else
      demand(
        typeof opinion === 'string',
        `refused a sound file: ${JSON.stringify(file.toString('latin1').slice(0, 400))}`,
      );
    return header !== undefined;
  },
};
