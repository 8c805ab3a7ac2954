import { join } from 'node:path';
import { expect, test } from 'vitest';
import { activeBackend } from '../../lib/backend/index.js';
import type { ChosenCodes } from '../../lib/containers/grid.js';
import type { QuantConfig } from '../../lib/matrix/config.js';
import { HqqError } from '../../lib/messages/errors.js';
import { openModel } from '../../lib/models/model.js';
import type { ModelOptions } from '../../lib/models/options.js';
import { quantizeModel, type Weigh } from '../../lib/models/quantize/quantize.js';
import { schemeNamed } from '../../lib/schemes/list.js';
import { SOLVERS } from '../../lib/solvers/solvers.js';
import { beginGrouped, storedAsIn } from '../../lib/tune/grouped.js';
import { TunedLayer } from '../../lib/tune/layer.js';
import { modelFolder, randomTensor } from '../support/checkpoints.js';
import { withChosen } from '../support/chosen.js';
import { gaussian, randomOf } from '../support/random.mjs';
import { scratchFolder } from '../support/scratch.js';

// What is tuned is what the scheme stores: a layer as it is read again is, to the bit, what the block computed with at the end.

const scratch = scratchFolder('tune-stored');
const machine = { backend: activeBackend(), threads: 1, signal: undefined };
const draw = gaussian(randomOf(3), 1);
const floats = (length: number) => Float32Array.from({ length }, draw);
const WEIGHT = 'model.layers.0.mlp.up_proj.weight';
const input = modelFolder([{ [WEIGHT]: randomTensor([16, 64], 3, 'float32') }]);

type Options = QuantConfig & ModelOptions;
const product = (parts: readonly (readonly Options[])[]): Options[] =>
  parts.reduce<Options[]>((all, part) => all.flatMap((one) => part.map((more) => ({ ...one, ...more }))), [{}]);

const ZEROS: readonly Options[] = [{ zeroPoint: 'float' }, { zeroPoint: 'integer' }, { zeroPoint: 'symmetric' }];
const GROUPS: readonly Options[] = [
  { groupSize: 16 },
  { groupSize: 16, axis: 0 },
  { granularity: 'channel' },
  { granularity: 'tensor' },
];
const SCALES: readonly Options[] = [
  {},
  { scaleDtype: 'float16' },
  { scaleDtype: 'bfloat16' },
  { metaDtype: 'float32' },
];
const OWN = product([ZEROS, GROUPS, SCALES, [{}, { metaBits: 8 }]]);
const ENGINES = product([
  [{ to: 'compressed-tensors' }, { to: 'awq' }, { to: 'gptq' }, { to: 'torchao' }],
  ZEROS,
  [{ groupSize: 32 }, { granularity: 'channel' }],
]).map((options) => ({ ...options, nbits: 4 as const }));
/** Each solver and each width of codes with each of the ways, one after the other. */
const CASES = [...OWN, ...ENGINES].map((options, i): Options => {
  const solver = SOLVERS[i % SOLVERS.length]!;
  return { nbits: ([2, 3, 4, 8] as const)[Math.floor(i / 5) % 4]!, solver, ...options };
});

/** Some steps of a layer, along a gradient that is drawn. */
const tuning =
  (made: Map<string, Float32Array | undefined>): Weigh =>
  async (source, plan) => {
    const scheme = schemeNamed(plan.scheme);
    const codes = new Map<string, ChosenCodes>();
    for (const planned of plan.shards.flatMap(({ layers }) => layers)) {
      const { site } = planned;
      const { weight, shape } = site;
      made.set(weight.name, undefined); // from here on nothing may be refused
      const data = new Float32Array(shape[0] * shape[1]);
      await source.read(weight, 0, new Uint8Array(data.buffer));
      const begun = await beginGrouped(planned, data, undefined, storedAsIn(scheme), machine);
      const layer = new TunedLayer({ weight: weight.name, module: site.name }, begun);
      await layer.begin(machine);
      for (let step = 0; step < 3; step++) await layer.step(floats(data.length), 0.1, machine);
      const { chosen, values } = await layer.finish(machine);
      codes.set(weight.name, chosen);
      made.set(weight.name, values.slice());
    }
    return { source: 'none', notes: [], refined: withChosen(source, codes) };
  };

test('what is tuned is what is stored, in every way that a format takes', async () => {
  let refused = 0;
  const wrong: string[] = [];
  for (const [i, options] of CASES.entries()) {
    const made = new Map<string, Float32Array | undefined>();
    const output = join(scratch, String(i));
    try {
      await quantizeModel(input, output, options, tuning(made));
    } catch (error) {
      if (!(error instanceof HqqError) || made.size > 0) wrong.push(`${JSON.stringify(options)}: ${error}`);
      else refused++;
      continue;
    }
    const model = await openModel(output);
    const got = model.tensor(WEIGHT) as Float32Array;
    const want = made.get(WEIGHT)!;
    const at = got.findIndex((value, place) => !Object.is(value, want[place]! + 0) && value !== want[place]);
    if (at >= 0) wrong.push(`${JSON.stringify(options)}: ${got[at]}, not ${want[at]} at ${at}`);
    await model.close();
  }
  expect(wrong).toEqual([]);
  expect(refused).toBeLessThan(CASES.length / 2); // what a format does not have, with or without tuning
});
