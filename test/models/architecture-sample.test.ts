import { readFileSync } from 'node:fs';
import { brotliDecompressSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { openSource } from '../../lib/containers/list.js';
import { layerOf } from '../../lib/containers/names.js';
import { resolveOptions } from '../../lib/models/options.js';
import { planModel } from '../../lib/models/quantize/plan.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { architectureOf } from '../../lib/models/select/architecture.js';
import { freshPath, modelFolder, randomTensor, type Source } from '../support/checkpoints.js';

// Some forty classes of transformers that between them have every kind of module: names and shapes of a tiny model of each, and what
// its modules are in Python (scripts/architectures/skeletons.py made them). `npm run sweep` is the same for all classes, with Python.

interface Skeleton {
  readonly class: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly tensors: Readonly<Record<string, readonly number[]>>;
  /** Modules that are nn.Linear, Conv1D, and the one that is the output head. */
  readonly linear: readonly string[];
  readonly transposed: readonly string[];
  readonly head: string | null;
}

const file = new URL('../golden/architectures.json.br', import.meta.url);
const SKELETONS = JSON.parse(brotliDecompressSync(readFileSync(file)).toString()) as readonly Skeleton[];
/** Most weights of a model that is not only planned. */
const FEW = 400_000;

/** A folder with these tensors, of a few random numbers again and again. */
function filled({ config, tensors }: Skeleton): string {
  const some = randomTensor([4096], 1).bytes;
  const source: Source = Object.fromEntries(
    Object.entries(tensors).map(([name, shape], index) => {
      const bytes = new Uint8Array(4 * shape.reduce((a, b) => a * b, 1));
      for (let at = 0; at < bytes.length; at += some.length) bytes.set(some.subarray(0, bytes.length - at), at);
      if (bytes.length >= 4) bytes.set(some.subarray(4 * (index % 64), 4 * (index % 64) + 4)); // tied pairs alone are alike
      return [name, { dtype: 'F32', shape, bytes }];
    }),
  );
  return modelFolder([source], { config: JSON.stringify(config, null, 2) });
}

describe.each(SKELETONS.map((skeleton) => [skeleton.class, skeleton] as const))('%s', (name, skeleton) => {
  it('has its linear layers quantized, and nothing else, and says of each other why it stays', async () => {
    const folder = filled(skeleton);
    const source = await openSource(folder);
    const plan = await planModel(source, resolveOptions({})).finally(() => source.close());
    const names = Object.keys(skeleton.tensors).filter((tensor) => skeleton.tensors[tensor]!.length === 2);
    const known = (await architectureOf(skeleton.config, names.map(layerOf)))!;
    expect(known.name).toBe(name);
    const moduleOf = (tensor: string) => known.moduleOf(layerOf(tensor)) ?? layerOf(tensor);
    const linear = new Set(skeleton.linear);
    const transposed = new Set(skeleton.transposed);
    const quantized = plan.shards.flatMap(({ layers }) => layers.map(({ site }) => moduleOf(site.name)));
    expect(quantized.filter((module) => !linear.has(module) && !transposed.has(module))).toEqual([]);
    expect(quantized).not.toContain(skeleton.head);
    const stays = new Set(plan.dense.map((tensor) => moduleOf(tensor.name)));
    const { skip_modules: skip } = plan.change.set.quantization_config as { skip_modules: readonly string[] };
    const held = new Set(Object.keys(skeleton.tensors).map(moduleOf));
    for (const module of skeleton.linear.filter((other) => !quantized.includes(other))) {
      // Modules that are one object have one name in the file.
      if (held.has(module)) expect(stays).toContain(module);
      if (held.has(module) || module === skeleton.head) expect(skip.some((part) => module.includes(part))).toBe(true);
    }
    for (const part of skip) expect(quantized.filter((module) => module.includes(part))).toEqual([]);
    expect(plan.dense.filter(({ reason }) => reason.startsWith('not known of'))).toEqual([]);
    expect(plan.notes.join()).not.toContain('unknown');
    const count = Object.values(skeleton.tensors).reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0);
    if (count > FEW) return;
    for (const nbits of [8, 4] as const) {
      const { tensors } = await quantizeModel(folder, freshPath(), { nbits });
      expect(tensors.map((tensor) => moduleOf(tensor.name)).sort()).toEqual([...quantized].sort());
    }
  });
});

it('the sample has every kind of module', async () => {
  const kinds = new Set<string | undefined>();
  for (const { config, tensors } of SKELETONS) {
    const of = (rank: number) => Object.keys(tensors).filter((name) => tensors[name]!.length === rank);
    const known = (await architectureOf(config, of(2).map(layerOf)))!;
    for (const name of [...of(2), ...of(3)]) kinds.add(known.kindOf(layerOf(name)));
  }
  expect([...kinds]).toEqual(
    expect.arrayContaining(['linear', 'head', 'read', 'transposed', 'embedding', 'experts', 'other']),
  );
  expect(SKELETONS.length).toBeGreaterThanOrEqual(40);
});
