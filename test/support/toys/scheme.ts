import { bitsOf, narrowBytes, widenBytes } from '../../../lib/compute/floats.js';
import type { TensorEntry, TensorSource } from '../../../lib/containers/container.js';
import { pieces, type Range, readRanges } from '../../../lib/containers/ranges.js';
import { storedType } from '../../../lib/containers/stored-types.js';
import { DTYPES } from '../../../lib/matrix/dtype.js';
import { resolveQuantConfig } from '../../../lib/matrix/options.js';
import type { Chunk, LayerForm, Scheme, StoredLayer } from '../../../lib/schemes/scheme.js';

// A scheme for tests: bytes with a sign and one step a row, `<name>.rows8` [out, in] and `<name>.step` [out].

interface ToyForm extends LayerForm {
  readonly shape: readonly [number, number];
}

interface ToyLayer extends StoredLayer {
  readonly codes: TensorEntry;
  readonly step: TensorEntry;
}

const CODES = '.rows8';

/** A few rows at once. */
interface Rows extends Chunk {
  readonly cols: number;
  readonly rows: Range;
}

function* rowsOf([rows, cols]: readonly [number, number]): Generator<Rows> {
  for (const piece of pieces(rows, 24)) {
    const count = piece.count * cols;
    yield { rows: piece, cols, weights: [{ at: piece.at * cols, count }], count };
  }
}

function layerOf({ entries }: TensorSource, codes: TensorEntry): ToyLayer {
  const name = codes.name.slice(0, -CODES.length);
  const step = entries.get(`${name}.step`)!;
  const [rows, cols] = codes.shape as [number, number];
  const turned = entries.get(`${name}.turned`);
  return {
    ...{
      scheme: 'toy8',
      bare: false,
      name,
      shape: [rows, cols],
      stored: turned ? 'in-out' : 'out-in',
      bias: entries.get(`${name}.bias`),
    },
    ...{ entries: turned ? [codes, step, turned] : [codes, step], codes, step },
    storage: {
      ...{ nbits: 8, groupSize: cols, axis: 1, packing: 'rows8', metaDtype: 'float32' },
      bitsPerWeight: 8 + 32 / cols,
    },
  };
}

/** The scheme, for the list. */
export const toyScheme: Scheme<ToyForm, ToyLayer, Rows> = {
  name: 'toy8',
  title: 'toy bytes',
  containers: ['toy', 'safetensors'],
  tensorsOf: () => 3,

  fit({ shape }) {
    return { shape, config: { ...resolveQuantConfig({ nbits: 8, axis: 1 }), groupSize: shape[1] } };
  },
  specs: ({ site: { name, stored }, form: { shape } }) => [
    { name: `${name}${CODES}`, type: storedType('I8'), shape },
    { name: `${name}.step`, type: storedType('F32'), shape: [shape[0]] },
    ...(stored === 'in-out' ? [{ name: `${name}.turned`, type: storedType('U8'), shape: [] }] : []),
  ],
  constants: ({ site: { name, stored } }) =>
    stored === 'in-out' ? [{ name: `${name}.turned`, type: storedType('U8'), shape: [], bytes: Uint8Array.of(1) }] : [],
  biasDtype: () => undefined,
  encodeBias: () => new Uint8Array(),
  chunks: ({ shape }) => rowsOf(shape),
  async encode({ site }, { rows: { at, count: rows }, cols, weights: ranges }, bytes, { slot }) {
    const groups = [{ at, count: rows }];
    const weights = slot.take('floats', Float32Array, rows * cols);
    widenBytes(bytes, site.weight.type.float!, weights);
    const codes = slot.take('codes', Int8Array, rows * cols);
    const steps = slot.take('steps', Float32Array, rows);
    const sums = {
      absError: 0,
      squaredError: 0,
      squaredWeight: 0,
      iterations: 0,
      badIndex: weights.findIndex(Number.isNaN),
    };
    for (let row = 0; row < rows; row++) {
      const own = weights.subarray(row * cols, (row + 1) * cols);
      const step = Math.fround(own.reduce((most, w) => Math.max(most, Math.abs(w)), 0) / 127);
      steps[row] = step;
      own.forEach((w, i) => {
        const code = step === 0 ? 0 : Math.round(w / step);
        codes[row * cols + i] = code;
        sums.absError += Math.abs(w - code * step);
        sums.squaredError += (w - code * step) ** 2;
        sums.squaredWeight += w ** 2;
      });
    }
    const raw = ({ buffer, byteOffset, byteLength }: ArrayBufferView) => new Uint8Array(buffer, byteOffset, byteLength);
    return {
      pieces: [
        { tensor: `${site.name}${CODES}`, ranges, elementBytes: 1, bytes: raw(codes) },
        { tensor: `${site.name}.step`, ranges: groups, elementBytes: 4, bytes: raw(steps) },
      ],
      sums,
    };
  },
  summarize: ({ shape: [rows, cols] }) => ({ packing: 'rows8', metaDtype: 'float32', bytes: rows * cols + 4 * rows }),
  declare: (layers) => ({ set: { toy: { layers: layers.length } }, drop: [] }),
  notes: () => ['Only tests read toys.'],

  mark: 'is called <module>.rows8',
  settings: ['toy'],
  traces({ entries }) {
    const layers = [...entries.keys()].filter((name) => name.endsWith(CODES));
    return layers.length === 0 ? undefined : `${layers.length} layers hold toy bytes`;
  },
  find: async (source) =>
    [...source.entries.values()].filter(({ name }) => name.endsWith(CODES)).map((entry) => layerOf(source, entry)),
  storedChunks: ({ shape }) => rowsOf(shape),
  async decode(source, { codes, step }, { rows: own, cols, weights: ranges }, dtype, { slot, signal }) {
    const [rows, groups] = [own.count, [own]];
    const [packed, steps] = [slot.take('packed', Uint8Array, rows * cols), slot.take('steps', Uint8Array, rows * 4)];
    await readRanges(source, codes, ranges, 1, packed, slot, signal);
    await readRanges(source, step, groups, 4, steps, slot, signal);
    const scale = bitsOf(steps, 'float32');
    const signed = new Int8Array(packed.buffer, packed.byteOffset, packed.byteLength);
    const floats = slot.take('floats', Float32Array, rows * cols);
    for (let i = 0; i < floats.length; i++) floats[i] = signed[i]! * scale[Math.floor(i / cols)]!;
    const out = slot.take('out', Uint8Array, rows * cols * DTYPES[dtype].bytes);
    narrowBytes(floats, dtype, out);
    return out;
  },
  load({ shape, codes, step }) {
    const packed = new Uint8Array(shape[0] * shape[1]);
    const scale = new Float32Array(shape[0]);
    return {
      reads: [
        { entry: codes, into: packed },
        { entry: step, into: new Uint8Array(scale.buffer) },
      ],
      finish: () => ({
        ...{ nbits: 8, groupSize: shape[1], axis: 1, shape, packing: '8bit_u8' },
        ...{ packed: packed.map((code) => code ^ 0x80), scale, zero: new Float32Array(shape[0]).fill(128) },
      }),
    };
  },
};
