import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { freshPath } from '../support/checkpoints.js';
import { filled, SKELETONS } from '../support/skeletons.js';

// The sample of classes once more, loaded by those who are to load it: HQQ_PYTHON is a Python with transformers 4.57.6, torch, hqq,
// accelerate and timm. Without one this says so; `npm run test:architectures` is for that, and takes a minute.

const python = process.env.HQQ_PYTHON ?? '';
if (python === '') console.warn('Not loaded in Python: HQQ_PYTHON names none (npm run test:architectures).');

interface Loaded {
  readonly class: string;
  readonly problems: readonly string[];
  readonly layers: number;
}

it.skipIf(python === '')('every class of the sample loads in transformers', { timeout: 600_000 }, async () => {
  const tasks: { readonly class: string; readonly float: string; readonly quantized: string }[] = [];
  const layers = new Map<string, number>();
  for (const skeleton of SKELETONS) {
    const [folder, out] = [filled(skeleton), freshPath()];
    const { tensors, notes } = await quantizeModel(folder, out, { nbits: 8 });
    if (notes.some((note) => note.includes('will not load'))) continue; // Conv1D, which is said
    tasks.push({ class: skeleton.class, float: folder, quantized: out });
    layers.set(skeleton.class, tensors.length);
  }
  expect(tasks.length).toBeGreaterThanOrEqual(35);
  const script = fileURLToPath(new URL('../../scripts/architectures/load.py', import.meta.url));
  const input = `${tasks.map((task) => JSON.stringify(task)).join('\n')}\n`;
  const { status, stdout, stderr } = spawnSync(python, [script], { input, encoding: 'utf8', maxBuffer: 2 ** 26 });
  expect(status, stderr.slice(-2000)).toBe(0);
  const loaded = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Loaded);
  expect(loaded.filter(({ problems }) => problems.length > 0)).toEqual([]);
  expect(new Map(loaded.map((model) => [model.class, model.layers]))).toEqual(layers);
});
