import { expect, it } from 'vitest';
import { activeBackend } from '../../lib/backend/index.js';
import { runTaskSync } from '../../lib/compute/run.js';
import { Scratch } from '../../lib/containers/scratch.js';
import { storedFloat } from '../../lib/containers/stored-types.js';
import { encodeNodes } from '../../lib/schemes/onnx/encode.js';
import { fitNodes, type NodesForm } from '../../lib/schemes/onnx/form.js';
import { rowsFrom } from '../../lib/schemes/rows/chunks.js';
import type { PlannedLayer, WorkRun } from '../../lib/schemes/scheme.js';
import { gaussian, randomOf } from '../support/random.mjs';
import { countTurns } from '../support/turns.js';

// Rows that blocks do not divide are measured in JavaScript: a chunk is a million weights.

it('lets the event loop turn while it measures rows that blocks do not divide, and hears an abort', async () => {
  const [rows, ins] = [1024, 1000];
  const weights = Float32Array.from({ length: rows * ins }, gaussian(randomOf(5), 0.02));
  const weight = { name: 'w', type: storedFloat('float32'), shape: [rows, ins] };
  const site = { name: 'w', weight, shape: [rows, ins], stored: 'out-in' } as never;
  const form = fitNodes(site, { config: { groupSize: 64 }, metaDtype: 'float32' } as never) as NodesForm;
  const backend = activeBackend();
  const encode = (signal: AbortSignal) => {
    const compute: WorkRun['compute'] = async (operation, args) => runTaskSync(backend, operation, args); // lets nothing turn
    const run = { slot: new Scratch(), threads: 1, signal, compute } as WorkRun;
    return encodeNodes(
      { site, form } as PlannedLayer<NodesForm>,
      rowsFrom(0, rows, ins),
      new Uint8Array(weights.buffer),
      run,
    );
  };
  const turns = countTurns();
  const { sums } = await encode(new AbortController().signal);
  expect(turns()).toBeGreaterThan(1);
  expect(sums.squaredWeight / weights.reduce((sum, w) => sum + w * w, 0)).toBeCloseTo(1, 6);
  expect(Math.sqrt(sums.squaredError / sums.squaredWeight)).toBeCloseTo(0.0868, 3); // .0867 of integer zeros in groups of 64
  const abort = new AbortController();
  setImmediate(() => abort.abort(new Error('enough')));
  await expect(encode(abort.signal)).rejects.toThrow('enough');
});
