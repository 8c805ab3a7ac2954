import { describe, expect, it } from 'vitest';
import { openSource } from '../../lib/containers/list.js';
import { layerOf } from '../../lib/containers/names.js';
import { resolveOptions } from '../../lib/models/options.js';
import { planModel } from '../../lib/models/quantize/plan.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { architectureOf } from '../../lib/models/select/architecture.js';
import { freshPath } from '../support/checkpoints.js';
import { filled, SKELETONS } from '../support/skeletons.js';

// What is quantized of tiny models of some forty classes of transformers that between them have every kind of module. `npm run sweep` is
// the same for all classes, with Python.

/** Most weights of a model that is not only planned. */
const FEW = 400_000;

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
    const nbits = SKELETONS.indexOf(skeleton) % 2 === 0 ? 8 : 4; // which layers are quantized does not depend on it
    const { tensors } = await quantizeModel(folder, freshPath(), { nbits });
    expect(tensors.map((tensor) => moduleOf(tensor.name)).sort()).toEqual([...quantized].sort());
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
