import { expect, test } from 'vitest';
import { Scratch } from '../../lib/containers/scratch.js';
import { resolveQuantConfig } from '../../lib/matrix/options.js';
import { type BlockForm, typeNamed } from '../../lib/schemes/ggml/form.js';
import { keepRows } from '../../lib/schemes/ggml/kept.js';
import { rowsFrom } from '../../lib/schemes/rows/chunks.js';
import type { RowForm } from '../../lib/schemes/rows/form.js';
import { solveRows } from '../../lib/schemes/rows/solve.js';
import type { LayerForm, PlannedLayer, WorkRun } from '../../lib/schemes/scheme.js';
import { countTurns } from '../support/turns.js';

// Codes that a layer has already are found in JavaScript, by those formats that keep them: a chunk is a million weights.

const [ROWS, COLS, SIZE] = [1024, 1024, 64];
const GROUPS = (ROWS * COLS) / SIZE;
const wanted = Uint8Array.from({ length: ROWS * COLS }, (_, i) => (i * 7 + (i >> 6)) % 16);
const grid = {
  ...{ nbits: 4, groupSize: SIZE },
  scale: new Float32Array(GROUPS).map((_, g) => 2 ** -(g % 7)),
  zero: new Float32Array(GROUPS).map((_, g) => g % 16),
};
const weights = Float32Array.from(wanted, (code, i) => {
  const group = Math.floor(i / SIZE);
  return (code - grid.zero[group]!) * grid.scale[group]!;
});
const config = { ...resolveQuantConfig({ groupSize: SIZE, scaleDtype: 'float16' }), groupSize: SIZE };
const layerOf = <Form extends LayerForm>(form: object) =>
  ({
    site: { name: 'a', weight: { name: 'a.weight' } },
    form: { ...form, shape: [ROWS, COLS] },
  }) as unknown as PlannedLayer<Form>;
const runOf = (signal: AbortSignal) => ({ slot: new Scratch(), grid, signal }) as unknown as WorkRun;

const WORKS = {
  'rows of an engine': (run: WorkRun) =>
    solveRows(layerOf<RowForm>({ config }), rowsFrom(0, ROWS, COLS), new Uint8Array(weights.buffer), run),
  'blocks of GGUF': (run: WorkRun) =>
    keepRows(
      layerOf<BlockForm>({ type: 'Q4_1' }),
      { rows: { at: 0, count: ROWS }, cols: COLS, weights: [{ at: 0, count: ROWS * COLS }], count: ROWS * COLS },
      ...([weights, typeNamed('Q4_1'), grid, run] as const),
    ),
} as const;

test.each(Object.entries(WORKS))(
  'while codes are kept as %s the event loop turns, and an abort is heard',
  async (_, work) => {
    const turns = countTurns();
    const { sums } = await work(runOf(new AbortController().signal));
    expect(turns()).toBeGreaterThan(1);
    expect(sums).toMatchObject({ absError: 0, squaredError: 0, badIndex: -1 });
    const abort = new AbortController();
    setImmediate(() => abort.abort(new Error('enough')));
    await expect(work(runOf(abort.signal))).rejects.toThrow('enough');
  },
);

test('codes that are kept are those that the numbers are of, whatever their scale is stored in', async () => {
  const { codes, scale, zero } = (await WORKS['rows of an engine'](runOf(new AbortController().signal))) as Awaited<
    ReturnType<typeof solveRows>
  >;
  expect(Buffer.compare(codes, wanted)).toBe(0);
  expect([scale, zero]).toEqual([grid.scale, grid.zero]);
});
