import { expect, test } from 'vitest';
import type {
  Backend,
  DTypeId,
  EncodeArgs,
  FloatBits,
  ImportanceArgs,
  Operations,
  QuantizeArgs,
  Words,
} from '../binding.js';
import { availableBackends, openBackend } from '../lib/backend/index.js';
import { narrow } from '../lib/backend/js/lanes.js';
import { provideShortMeta } from '../lib/backend/js/short-meta.js';
import { solverArgs } from '../lib/compute/arguments.js';
import { highestCode, NBITS } from '../lib/matrix/config.js';
import { DTYPE_NAMES } from '../lib/matrix/dtype.js';
import { allocateWords, FORMATS, type PackFormat, packedRows } from '../lib/matrix/format.js';
import { resolveQuantConfig } from '../lib/matrix/options.js';
import { panelSizes } from '../lib/matrix/panels.js';
import '../lib/schemes/rows/words.js'; // provides packWords in JavaScript
import { SOLVERS, solverNamed } from '../lib/solvers/solvers.js';
import { unifyNans } from './support/nan.js';
import { gaussian, randomOf } from './support/random.mjs';
import { shareOf } from './support/share.js';

// JavaScript, and every native instruction set with any number of threads, write the same bytes: random operations, with the
// JavaScript twin as the measure. native/tests/identity.cc does the same within the native core, with many more cases.

provideShortMeta();

const SEED = Number(process.env.HQQ_TEST_SEED || Date.now() % 1_000_000_007);
console.log(`identity: HQQ_TEST_SEED=${SEED} repeats these cases`);

/** Straddle every width of vectors. */
const SIZES = [1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128] as const;
/** Groups that solvers which fit scale and zero together solve alone, and the longest that they solve beside others. */
const LONG = [256, 257, 300, 1100] as const;
const THREADS = [1, 2, 7] as const;
const DTYPE_IDS = [0, 1, 2] as const;
const NATIVE = availableBackends().filter((name) => name !== 'js');

class Random {
  /** [0, 1) */
  readonly next: () => number;
  readonly normal: () => number;

  constructor(seed: number) {
    this.next = randomOf(seed);
    this.normal = gaussian(this.next, 1);
  }

  below = (count: number): number => Math.floor(this.next() * count);
  chance = (percent: number): boolean => this.next() * 100 < percent;
  pick = <T>(list: readonly T[]): T => list[this.below(list.length)]!;
}

function floatOf(bits: number): number {
  return new Float32Array(Uint32Array.of(bits).buffer)[0]!;
}

/** Ordinary weights, and every kind that has hurt somebody. */
function randomWeights(random: Random, count: number, dtype: DTypeId): FloatBits {
  const scale = 2 ** (random.below(9) - 6);
  const constant = random.normal();
  const kinds: readonly (() => number)[] = [
    () => random.normal() * 0.02,
    () => random.normal() * 1e-8,
    () => random.normal() * 1e37,
    () => (random.next() * 2 - 1) * 3e38, // the range overflows
    () => floatOf((random.next() * 2 ** 32) & 0x807fffff), // subnormal
    () => floatOf((random.next() * 2 ** 32) & 0xbfffffff), // below 2
    () => constant,
    () => (random.chance(50) ? -0 : 0),
    () => (random.below(33) - 16) * 0.25, // ties
    () => random.normal() * (random.chance(3) ? 30 : 0.02), // outliers
    () => random.normal() * scale, // where shrinkage has something to leave
    () => random.normal() * scale,
  ];
  const kind = random.pick(kinds);
  const largest = dtype === 1 ? 65504 : 3.3e38;
  const floats = Float32Array.from({ length: count }, () => Math.min(Math.max(kind(), -largest), largest));
  if (dtype === 0) return floats;
  const halves = new Uint16Array(count);
  narrow(floats, count, dtype, halves, 0);
  return halves;
}

function randomGrid(random: Random) {
  const format = random.pick(FORMATS);
  const long = random.chance(10) ? random.pick(['rows', 'cols']) : undefined; // with few beside: JavaScript takes its time
  const side = (name: string) => random.pick(long === undefined ? SIZES : long === name ? LONG : SIZES.slice(0, 6));
  const [rows, cols] = [side('rows'), side('cols')];
  const step = packedRows(format, rows) + (random.chance(20) ? random.below(4) : 0); // a caller's chunk may be short
  return { format, rows, cols, step, count: rows * cols, words: step * cols };
}

function randomImportance(random: Random, groups: number): ImportanceArgs {
  const features = random.pick(SIZES);
  const values = (randomWeights(random, features, 0) as Float32Array).map(Math.abs);
  const starts = Int32Array.from({ length: groups }, () => random.below(features));
  return { values, starts, stride: 1 + random.below(2 * features) };
}

function randomBytes(random: Random, count: number, mask = 255): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: count }, () => random.below(256) & mask);
}

function randomWords(random: Random, format: PackFormat, count: number): Words {
  const bytes = randomBytes(random, count * format.wordBytes);
  return format.wordBytes === 1 ? bytes : new Int32Array(bytes.buffer);
}

/** An operation but for its outputs, the outputs' makers, and the type of those that are 16-bit floats. */
interface Case<K extends Exact> {
  readonly inputs: object;
  readonly outputs: () => Partial<Operations[K]> | { readonly out: Float32Array };
  readonly dtype?: DTypeId;
}

/**
 * Operations whose bits every backend gives. Not those that sum floats: their order is each instruction set's own, and
 * test/linear.test.ts and test/runtime/operations.test.ts bound what comes of it.
 */
type Exact =
  | 'quantize'
  | 'encode'
  | 'extremes'
  | 'pack'
  | 'unpack'
  | 'packWords'
  | 'dequantize'
  | 'distance'
  | 'convert'
  | 'layOut'
  | 'expand'
  | 'linear';

type Cases = { readonly [K in Exact]: (random: Random) => Case<K> };

function randomPanels(random: Random) {
  const format = random.pick(FORMATS);
  const [out, groups, size] = [random.pick(SIZES), 1 + random.below(4), random.pick(SIZES)];
  const { codes, meta } = panelSizes(format.id, out, groups * size, size);
  const [shared, half] = [random.pick([-1, -1, 0, 3, 2 ** (format.codeBits - 1), 255]), random.below(2)];
  const short = shared >= 0 || half === 1 || random.chance(30);
  const shape = Int32Array.of(out, groups * size, size, format.id, ...(short ? [shared, half] : []));
  /** Scales and zeros as they lie. */
  const randomMeta = () => randomWeights(random, shared < 0 ? meta : meta / 2, half as DTypeId);
  return { format, shape, out, groups: out * groups, cols: groups * size, size, codes, randomMeta };
}

const CASES: Cases = {
  quantize(random) {
    const { format, rows, cols, step, count, words } = randomGrid(random);
    const dtype = random.pick(DTYPE_IDS);
    const axis = random.pick([0, 1] as const);
    const nbits = random.pick(NBITS.filter((bits) => bits <= format.codeBits));
    const solver = random.chance(40) ? 'hqq' : random.pick(SOLVERS);
    const zeroPoint = random.pick(solverNamed(solver).zeroPoints);
    const config = resolveQuantConfig({
      nbits,
      solver,
      zeroPoint,
      scaleDtype: random.chance(60) ? 'float32' : random.pick(DTYPE_NAMES),
      lpNorm: random.pick([1, 0.7, 0.5, ...(solver === 'joint' ? [2, 2, 2, 2, 2, 2] : [])]),
      beta: random.pick([1, 10, 100]),
      ...(solver === 'hqs' && { lambda: random.pick([0, 0.001, 0.3, 2]) }),
      ...(solver === 'admm' && { rho: random.pick([0.3, 0.75, 1, 1.5]) }),
      kappa: random.pick([1, 1.01]),
      iterations: random.pick([1, 2, 5, 20]),
      roundZero: zeroPoint === 'float' && random.chance(30),
      referenceGuards: random.chance(30),
    });
    const groups = axis === 1 ? rows : cols;
    const inputs: Omit<QuantizeArgs, 'packed' | 'scale' | 'zero' | 'stats' | 'threads'> = {
      ...{ weights: randomWeights(random, count, dtype), dtype, rows, cols, axis, format: format.id, step },
      ...solverArgs(config),
      ...(random.chance(40) && { importance: randomImportance(random, groups) }),
      block: 1 + random.below(16),
      metaDtype: random.pick(DTYPE_IDS),
    };
    const outputs = () => ({
      packed: allocateWords(format, words).fill(0x5a),
      scale: new Float32Array(groups).fill(5),
      zero: new Float32Array(groups).fill(5),
      stats: new Float64Array(5).fill(5),
    });
    return { inputs, outputs };
  },
  encode(random) {
    const { format, rows, cols, step, count, words } = randomGrid(random);
    const [axis, dtype] = [random.pick([0, 1] as const), random.pick(DTYPE_IDS)];
    const groups = axis === 1 ? rows : cols;
    const maxCode = highestCode(random.pick(NBITS.filter((bits) => bits <= format.codeBits)));
    const sizes = [0, 2 ** -130, 2 ** -127, 2 ** -126, 1e-9, 0.001, 0.02, 0.5, 1, 2 ** 100];
    const scale = Float32Array.from({ length: groups }, () => random.pick(sizes) * random.pick([1, 1, -1]));
    const zero = Float32Array.from({ length: groups }, () => (random.next() * 3 - 1) * maxCode);
    const inputs: Omit<EncodeArgs, 'packed' | 'stats' | 'threads'> = {
      ...{ weights: randomWeights(random, count, dtype), dtype, rows, cols, axis, format: format.id, step },
      ...{ maxCode, scale, zero, block: 1 + random.below(16) },
    };
    const outputs = () => ({
      packed: allocateWords(format, words).fill(0x5a),
      stats: new Float64Array(5).fill(5),
    });
    return { inputs, outputs };
  },
  extremes(random) {
    const [rows, cols] = [random.pick(SIZES), random.chance(20) ? 1500 + random.below(20) : random.pick(SIZES)];
    const [axis, dtype] = [random.pick([0, 1] as const), random.pick(DTYPE_IDS)];
    const groups = axis === 1 ? rows : cols;
    const outputs = () => ({ least: new Float32Array(groups).fill(5), most: new Float32Array(groups).fill(5) });
    return { inputs: { weights: randomWeights(random, rows * cols, dtype), dtype, rows, cols, axis }, outputs };
  },
  pack(random) {
    const { format, rows, cols, step, count, words } = randomGrid(random);
    const codes = randomBytes(random, count, 2 ** format.codeBits - 1);
    const outputs = () => ({ packed: allocateWords(format, words).fill(0x5a) });
    return { inputs: { rows, cols, step, format: format.id, codes }, outputs };
  },
  unpack(random) {
    const { format, rows, cols, step, count, words } = randomGrid(random);
    const packed = randomWords(random, format, words);
    const outputs = () => ({ codes: new Uint8Array(count).fill(0x5a) });
    return { inputs: { rows, cols, step, format: format.id, packed }, outputs };
  },
  packWords(random) {
    const bits = 1 + random.below(8);
    const across = bits === 4 && random.chance(60);
    const [rows, cols] = [
      random.pick(SIZES) * (across ? 8 : 1),
      random.chance(30) ? 800 + random.below(700) : random.pick(SIZES),
    ];
    const order = Int32Array.from(across ? { length: 8 } : [], (_, i) => (5 * i + rows) % 8);
    const [lines, width] = across ? [rows / 8, cols] : [rows, Math.ceil((cols * bits) / 32)];
    const turned = random.chance(50);
    const [height, wide] = turned ? [width, lines] : [lines, width];
    const step = wide + (random.chance(50) ? 0 : random.below(20));
    // Of codes that are too large, what is too much is left out.
    const codes = randomBytes(random, rows * cols, random.chance(20) ? 255 : 2 ** bits - 1);
    const outputs = () => ({ words: new Int32Array((height - 1) * step + wide).fill(0x5a5a5a5a) });
    return { inputs: { rows, cols, bits, order, turned, step, codes }, outputs };
  },
  dequantize(random) {
    const { format, rows, cols, step, count, words } = randomGrid(random);
    const axis = random.pick([0, 1] as const);
    const dtype = random.pick(DTYPE_IDS);
    const groups = axis === 1 ? rows : cols;
    const [scale, zero] = [randomWeights(random, groups, 0), randomWeights(random, groups, 0)];
    const packed = randomWords(random, format, words);
    const inputs = {
      rows,
      cols,
      step,
      format: format.id,
      packed,
      axis,
      scale,
      zero,
      dtype,
      roundEach: random.chance(50),
    };
    return { inputs, dtype, outputs: () => ({ out: dtype === 0 ? new Float32Array(count) : new Uint16Array(count) }) };
  },
  distance(random) {
    const count = random.chance(20)
      ? random.pick([16383, 16384, 16385, 40000])
      : random.pick(SIZES) * random.pick(SIZES);
    const [aDtype, bDtype] = [random.pick(DTYPE_IDS), random.pick(DTYPE_IDS)];
    const [a, b] = [randomWeights(random, count, aDtype), randomWeights(random, count, bDtype)];
    return { inputs: { a, aDtype, b, bDtype }, outputs: () => ({ stats: new Float64Array(4).fill(5) }) };
  },
  convert(random) {
    const count = random.chance(10) ? random.pick([65535, 65537, 140000]) : random.pick(SIZES) * random.pick(SIZES);
    const [fromDtype, toDtype] = [random.pick(DTYPE_IDS), random.pick(DTYPE_IDS)];
    const from = randomWeights(random, count, fromDtype);
    const outputs = () => ({ to: toDtype === 0 ? new Float32Array(count).fill(5) : new Uint16Array(count).fill(5) });
    return { inputs: { from, fromDtype, toDtype }, dtype: toDtype, outputs };
  },
  layOut(random) {
    const { format, shape, groups, size, codes, randomMeta } = randomPanels(random);
    const step = packedRows(format, groups) + (random.chance(20) ? random.below(4) : 0);
    const packed = randomWords(random, format, step * size);
    const [scale, zero] = [randomWeights(random, groups, 0), randomWeights(random, groups, 0)];
    const outputs = () => ({ codes: new Uint8Array(codes).fill(0x5a), meta: randomMeta().fill(5) });
    return { inputs: { shape, step, packed, scale, zero }, outputs };
  },
  expand(random) {
    const { shape, out, cols, codes, randomMeta } = randomPanels(random);
    const panels = { codes: randomBytes(random, codes), meta: randomMeta() };
    return { inputs: { shape, ...panels }, outputs: () => ({ out: new Float32Array(out * cols).fill(5) }) };
  },
  linear(random) {
    const { shape, out, cols, codes, randomMeta } = randomPanels(random);
    const batch = random.pick([1, 1, 2, 3, 5, 9, 65]);
    const y = new Float32Array(batch * out);
    const bias = random.chance(50) ? new Float32Array(0) : (randomWeights(random, out, 0) as Float32Array);
    const layer = {
      shape,
      codes: randomBytes(random, codes),
      meta: randomMeta(),
      bias,
      out: y,
    };
    const x = randomWeights(random, batch * cols, 0);
    return { inputs: { layers: [layer], x, int8: true }, outputs: () => ({ out: y.fill(5) }) };
  },
};

function run<K extends Exact>(backend: Backend, operation: K, c: Case<K>, threads: number): [string, Buffer][] {
  const outputs = c.outputs();
  backend.run(operation, { ...c.inputs, ...outputs, threads } as unknown as Operations[K]);
  return Object.entries(outputs).map(([name, view]) => {
    const { buffer, byteOffset, byteLength } = unifyNans(view as ArrayBufferView, c.dtype);
    return [name, Buffer.from(Buffer.from(buffer, byteOffset, byteLength))]; // a copy: some outputs are used again
  });
}

/** The numbers and flags of a case, for the message of a failure. */
const describeInputs = (inputs: object) =>
  JSON.stringify(inputs, (_, value) => (ArrayBuffer.isView(value) ? '...' : value));

function compare<K extends Exact>(operation: K, count: number): void {
  const js = openBackend('js');
  for (let i = 0; i < count; i++) {
    const c = CASES[operation](new Random(SEED * 1009 + i));
    const want = run(js, operation, c, 1);
    for (const isa of NATIVE) {
      for (const threads of THREADS) {
        run(openBackend(isa), operation, c, threads).forEach(([name, got], k) => {
          if (got.equals(want[k]![1])) return;
          const context = `HQQ_TEST_SEED=${SEED} case ${i}: ${describeInputs(c.inputs)}`;
          expect.fail(`${operation} on ${isa} with ${threads} threads: ${name} is not that of JavaScript. ${context}`);
        });
      }
    }
  }
}

test.runIf(NATIVE.length > 0).each([
  ['quantize', 400],
  ['encode', 300],
  ['extremes', 200],
  ['pack', 150],
  ['unpack', 150],
  ['packWords', 200],
  ['dequantize', 300],
  ['distance', 60],
  ['convert', 100],
  ['layOut', 150],
  ['expand', 100],
  ['linear', 300],
] as const)('%s: %i random cases are the same on every backend', (operation, count) =>
  compare(operation, shareOf(count)),
);

test.each([...NATIVE, 'js'])('%s finds the first weight that is not finite', (name) => {
  const backend = openBackend(name);
  for (let i = 0; i < 100; i++) {
    const random = new Random(SEED * 7919 + i);
    const c = CASES.quantize(random);
    // Weights are looked at before a solver is asked, and those that fit would take long.
    const minmax = { solver: SOLVERS.indexOf('minmax'), parameters: new Float32Array(0) };
    if (SOLVERS[(c.inputs as QuantizeArgs).solver] !== 'hqq') Object.assign(c.inputs, minmax);
    const { weights, dtype } = c.inputs as QuantizeArgs;
    const first = random.below(weights.length);
    const bad = [
      [Number.NaN, Infinity, -Infinity],
      [0x7c00, 0xfc00, 0x7e01],
      [0x7f80, 0xff80, 0x7fc1],
    ][dtype]!;
    weights[first] = random.pick(bad);
    weights[first + random.below(weights.length - first)] = random.pick(bad);
    for (const threads of THREADS) {
      const outputs = c.outputs() as Pick<QuantizeArgs, 'packed' | 'scale' | 'zero' | 'stats'>;
      backend.run('quantize', { ...(c.inputs as QuantizeArgs), ...outputs, threads });
      expect(outputs.stats[4], `HQQ_TEST_SEED=${SEED} case ${i}: ${describeInputs(c.inputs)}`).toBe(first);
    }
  }
});

test('all 16-bit numbers widen alike, and floats of every magnitude round alike', () => {
  const random = new Random(SEED);
  const floats = Float32Array.from({ length: 1 << 17 }, () => floatOf(random.next() * 2 ** 32));
  const every = Uint16Array.from({ length: 65536 }, (_, i) => i);
  type Conversion = readonly [from: FloatBits, fromDtype: DTypeId, toDtype: DTypeId];
  const converted = (backend: Backend, [from, fromDtype, toDtype]: Conversion) => {
    const to = toDtype === 0 ? new Float32Array(from.length) : new Uint16Array(from.length);
    backend.run('convert', { from, fromDtype, to, toDtype, threads: 2 });
    return Buffer.from(unifyNans(to, toDtype).buffer);
  };
  for (const dtype of [1, 2] as const) {
    for (const isa of NATIVE) {
      const conversions: readonly Conversion[] = [
        [every, dtype, 0],
        [every, dtype, dtype === 1 ? 2 : 1],
        [floats, 0, dtype],
      ];
      for (const conversion of conversions) {
        const want = converted(openBackend('js'), conversion);
        const same = converted(openBackend(isa), conversion).equals(want);
        expect(same, `${isa}, ${conversion[1]} to ${conversion[2]}`).toBe(true);
      }
    }
  }
});
