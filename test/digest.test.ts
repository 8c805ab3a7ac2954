import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import type { Backend, DTypeId, FloatBits, FormatId, Operations, Words } from '../binding.js';
import { availableBackends, openBackend } from '../lib/backend/index.js';
import { FORMATS } from '../lib/matrix/format.js';
import { SOLVERS, ZERO_KINDS } from '../lib/solvers/solvers.js';
import { unifyNans } from './support/nan.js';

// The same digests as the C++ tests print on x64 and on 64-bit ARM: inputs are made as native/tests/digest.cc makes them.

type Fields = Readonly<Record<string, string>>;

interface DigestLine {
  readonly text: string;
  readonly operation: keyof Operations;
  readonly number: (name: string) => number;
  readonly list: (name: string) => number[];
  readonly has: (name: string) => boolean;
  readonly name: (name: string) => string | undefined;
}

const lines: readonly DigestLine[] = readFileSync(new URL('../native/tests/digests.txt', import.meta.url), 'utf8')
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))
  .map((text) => {
    const [operation, ...pairs] = text.split(' -> ')[0]!.split(' ');
    const fields: Fields = Object.fromEntries(pairs.map((pair) => pair.split('=')));
    const list = (name: string) => {
      if (fields[name] === undefined) throw new Error(`No ${name} in: ${text}`);
      return fields[name].split(',').map(Number);
    };
    const has = (name: string) => fields[name] !== undefined;
    const name = (field: string) => fields[field];
    return { text, operation: operation as keyof Operations, list, has, name, number: (field) => list(field)[0]! };
  });

/** xorshift32, and what is made of it. */
class Stream {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  #next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (this.#state = x >>> 0);
  }

  elements(dtype: DTypeId, count: number, low: number, span: number): FloatBits {
    const fraction = [23, 10, 7][dtype]!;
    const bits = dtype === 0 ? new Uint32Array(count) : new Uint16Array(count);
    for (let i = 0; i < count; i++) {
      const a = this.#next();
      const b = this.#next();
      const exponent = low + (((a >>> 8) & 0xffff) % span);
      bits[i] = ((a >>> 31) << (dtype === 0 ? 31 : 15)) | (exponent << fraction) | (b >>> (32 - fraction));
    }
    return dtype === 0 ? new Float32Array(bits.buffer) : (bits as Uint16Array);
  }

  bytes(count: number, mask: number): Uint8Array<ArrayBuffer> {
    return Uint8Array.from({ length: count }, () => (this.#next() >>> 24) & mask);
  }
}

/** FNV-1a */
function digest(view: ArrayBufferView): string {
  let hash = 0x811c9dc5;
  for (const byte of new Uint8Array(view.buffer, view.byteOffset, view.byteLength))
    hash = Math.imul(hash ^ byte, 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, '0');
}

interface Case {
  readonly operation: keyof Operations;
  readonly args: Operations[keyof Operations];
  readonly outputs: Readonly<Record<string, ArrayBufferView>>;
}

/** Parameters of solvers that a case names, as native/tests/cases.cc has them; there is no growth, whose power is a library's own. */
function parametersOf(solver: string, { number }: DigestLine): readonly number[] {
  const iterations = number('iterations');
  if (solver === 'hqs') return Array.from({ length: iterations }, (_, i) => (i === 0 ? 1 : 1 / 1.25));
  if (solver === 'admm')
    return Array.from({ length: iterations }, (_, i) => (i === 0 ? 1 : i < 9 ? 0.625 - i / 64 : 0.5));
  if (solver === 'kl') return [160, 0, 160, 0, 144, 16, 160, 24, 150, 40, 120];
  const symmetric = ZERO_KINDS[number('zeroKind')] === 'symmetric';
  const starts = symmetric ? [0, 0, 1, 0, -1, -0.5, 1, 0.5] : [0, 0, 0.45, 0.45, 0, 0.45, 0.45, -0.45];
  return [number('lpNorm'), 2, 0, 4, ...starts, ...new Array<number>(iterations).fill(1 / number('beta'))];
}

function caseOf(line: DigestLine, threads: number): Case {
  const { operation, number, list, has, name } = line;
  const stream = new Stream(number('seed'));
  if (operation === 'distance') {
    const [aDtype, bDtype] = [number('aDtype') as DTypeId, number('bDtype') as DTypeId];
    const [lowA, lowB] = list('low') as [number, number];
    const a = stream.elements(aDtype, number('count'), lowA, number('span'));
    const b = stream.elements(bDtype, number('count'), lowB, number('span'));
    const stats = new Float64Array(4);
    return { operation, args: { a, aDtype, b, bDtype, stats, threads }, outputs: { stats } };
  }
  if (operation === 'convert') {
    const [fromDtype, toDtype] = [number('fromDtype') as DTypeId, number('toDtype') as DTypeId];
    const from = stream.elements(fromDtype, number('count'), number('low'), number('span'));
    const to = toDtype === 0 ? new Float32Array(from.length) : new Uint16Array(from.length);
    return { operation, args: { from, fromDtype, to, toDtype, threads }, outputs: { to } };
  }
  const format = FORMATS[number('format')]!;
  const [rows, cols, step] = [number('rows'), number('cols'), number('step')];
  const grid = { format: number('format') as FormatId, rows, cols, step, threads };
  const count = grid.rows * grid.cols;
  const words = (bytes: Uint8Array<ArrayBuffer>): Words =>
    format.wordBytes === 1 ? bytes : new Int32Array(bytes.buffer);
  const wordBytes = grid.step * grid.cols * format.wordBytes;
  const empty = () => words(new Uint8Array(wordBytes).fill(0x5a));
  if (operation === 'pack') {
    const packed = empty();
    return {
      operation,
      args: { ...grid, codes: stream.bytes(count, 2 ** format.codeBits - 1), packed },
      outputs: { packed },
    };
  }
  if (operation === 'unpack') {
    const codes = new Uint8Array(count);
    return { operation, args: { ...grid, codes, packed: words(stream.bytes(wordBytes, 255)) }, outputs: { codes } };
  }
  const axis = number('axis') as 0 | 1;
  const dtype = number('dtype') as DTypeId;
  const groups = axis === 1 ? grid.rows : grid.cols;
  if (operation === 'dequantize') {
    const packed = words(stream.bytes(wordBytes, 255));
    const scale = stream.elements(0, groups, 110, 17) as Float32Array;
    const zero = stream.elements(0, groups, 120, 12) as Float32Array;
    const out = dtype === 0 ? new Float32Array(count) : new Uint16Array(count);
    const roundEach = number('roundEach') === 1;
    return { operation, args: { ...grid, axis, dtype, packed, scale, zero, roundEach, out }, outputs: { out } };
  }
  const weights = stream.elements(dtype, count, number('low'), number('span'));
  const schedule = new Float32Array(2 * number('iterations'));
  for (let i = 0, beta = number('beta'); 2 * i < schedule.length; i++, beta *= number('kappa')) {
    schedule.set([1 / beta, number('threshold')], 2 * i);
  }
  const moves = schedule.length > 0;
  const grows = schedule[0] !== schedule.at(-2) ? 1 : 0;
  const importanceOf = (features: number) => ({
    values: (stream.elements(0, features, number('low'), number('span')) as Float32Array).map(Math.abs),
    starts: Int32Array.from({ length: groups }, (_, g) => (7 * g) % features),
    stride: number('stride'),
  });
  const [scale, zero] = [new Float32Array(groups), new Float32Array(groups)];
  const outputs = { packed: empty(), scale, zero, stats: new Float64Array(5) };
  const solver = name('solver') ?? (moves ? 'hqq' : 'minmax');
  const own = moves ? [number('lpNorm'), number('threshold'), grows, ...schedule] : [];
  const options = {
    maxCode: number('maxCode'),
    solver: (SOLVERS as readonly string[]).indexOf(solver),
    parameters: Float32Array.from(has('solver') ? parametersOf(solver, line) : own),
    zeroKind: has('solver')
      ? number('zeroKind')
      : ZERO_KINDS.indexOf(number('roundZero') === 1 ? 'roundedStart' : 'float'),
    scaleDtype: 0 as DTypeId,
    importance: has('features') ? importanceOf(number('features')) : undefined,
    referenceGuards: number('referenceGuards') === 1,
    block: number('block'),
    metaDtype: number('metaDtype') as DTypeId,
  };
  return { operation, args: { ...grid, ...options, ...outputs, weights, dtype, axis }, outputs };
}

function lineOf(backend: Backend, line: DigestLine, threads: number): string {
  const { operation, args, outputs } = caseOf(line, threads);
  backend.run(operation, args);
  const dtype = operation === 'dequantize' ? (line.number('dtype') as DTypeId) : 0;
  const digests = Object.entries(outputs).map(([name, view]) => `${name}=${digest(unifyNans(view, dtype))}`);
  return `${line.text.split(' -> ')[0]} -> ${digests.join(' ')}`;
}

test.each(availableBackends())('%s computes the digests of native/tests/digests.txt', (name) => {
  const backend = openBackend(name);
  expect(lines.length).toBeGreaterThan(200);
  for (const threads of name === 'js' ? [1] : [1, 2, 7]) {
    expect(lines.map((line) => lineOf(backend, line, threads))).toEqual(lines.map((line) => line.text));
  }
});
