import * as fs from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { quantizeSync } from '../../lib/compute/quantize.js';
import { CONTAINERS } from '../../lib/containers/list.js';
import { countOf } from '../../lib/containers/range.js';
import type { QuantConfig } from '../../lib/matrix/config.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { toHalf, worse } from '../../lib/schemes/hqq/half.js';
import { SOLVERS, solverNamed } from '../../lib/solvers/solvers.js';
import {
  beside,
  encode,
  failure,
  freshPath,
  modelFolder,
  numbersOf,
  randomTensor,
  type Source,
  type SourceTensor,
  tensorOf,
} from '../support/checkpoints.js';
import { seededRandom } from '../support/random.mjs';

// How scales and zeros are stored is decided from the weights, before anything is written.

const tiny = tensorOf(
  numbersOf(randomTensor([64, 64], 5)).map((w) => w * 1e-7),
  [64, 64],
);

describe('the type of scales and zeros', () => {
  it('is what they themselves say, however near they are to what float16 holds', async () => {
    const random = seededRandom();
    const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!;
    const seen = { float16: 0, float32: 0 };
    for (let round = 0; round < 18; round++) {
      const solver = pick(SOLVERS);
      const zeroPoint = pick([...solverNamed(solver).zeroPoints, 'float' as const]);
      const config: QuantConfig = {
        nbits: pick([8, 6, 4, 3, 2, 1.58, 1]),
        groupSize: pick([8, 32, 64]),
        axis: pick([0, 1]),
        solver,
        zeroPoint,
        roundZero: zeroPoint === 'float' && random() < 0.3,
        referenceGuards: random() < 0.3,
        beta: pick([0.1, 10]),
        iterations: pick([1, 20]),
      };
      const source: Record<string, SourceTensor> = {};
      for (let i = 0; i < 24; i++) {
        // Ordinary layers in which one place is small, far from zero, equal or large.
        const width = 10 ** (-6 + 11 * random());
        const far = pick([0, 0, width * 2 ** (10 * random())]);
        const values = numbersOf(randomTensor([64, 64], 100 * round + i)).map((w) => w);
        const from = Math.floor(random() * 4000);
        for (let k = from; k < from + 64; k++) values[k] = far + values[k]! * width * pick([1, 1, 1, 0]);
        source[`l${i}.weight`] = tensorOf(values, [64, 64], pick(['float32', 'bfloat16']));
      }
      const input = freshPath('in.safetensors');
      fs.writeFileSync(input, encode(source));
      const report = await quantizeModel(input, freshPath(), config);
      for (const { name, metaDtype } of report.tensors) {
        const { scale, zero } = quantizeSync(
          { data: numbersOf(source[name]!), dtype: 'float32', shape: [64, 64] },
          { ...config },
        );
        const half = new Uint16Array(scale.length);
        const fit = worse(toHalf(scale, 'scale', half), toHalf(zero, 'zero', half, scale));
        const context = `round ${round}, ${name}: ${JSON.stringify(config)}`;
        expect([context, metaDtype]).toEqual([context, fit === 'holds' ? 'float16' : 'float32']);
        seen[metaDtype as 'float16']++;
      }
    }
    expect(Math.min(...Object.values(seen))).toBeGreaterThan(5);
  });
});

describe('an output', () => {
  const [first] = CONTAINERS;
  afterEach(() => void CONTAINERS.splice(0, 1, first!));

  /** Counts the files and bytes that are written, and tells at which moment a file is made. */
  function counting(atCreate: (path: string) => void = () => {}) {
    const written = { files: 0, bytes: 0, planned: 0 };
    CONTAINERS.splice(0, 1, {
      ...first!,
      async create(path, layout, mode) {
        written.files++;
        written.planned += [...layout.entries.values()].reduce((sum, { begin, end }) => sum + end - begin, 0);
        atCreate(path);
        const sink = await first!.create(path, layout, mode);
        return {
          write: (name, at, bytes) => {
            written.bytes += bytes.byteLength;
            return sink.write(name, at, bytes);
          },
          writePieces: (name, pieces, bytes, signal) => {
            written.bytes += countOf(pieces);
            return sink.writePieces(name, pieces, bytes, signal);
          },
          finish: () => sink.finish(),
          abandon: () => sink.abandon(),
        };
      },
    });
    return written;
  }

  const ordinary = (seed: number): Source => ({
    [`a${seed}.weight`]: randomTensor([64, 64], seed),
    [`b${seed}.weight`]: randomTensor([128, 64], seed + 1, 'bfloat16'),
  });

  it('is written once, whatever its layers turn out to need', async () => {
    const shards = [
      ordinary(1),
      { 'tiny.weight': tiny, ...ordinary(2) },
      ordinary(3),
      { ...ordinary(4), 't.weight': tiny },
    ];
    const written = counting();
    const report = await quantizeModel(modelFolder(shards), freshPath());
    expect(report.tensors.filter(({ metaDtype }) => metaDtype === 'float32')).toHaveLength(2);
    expect(written.files).toBe(4);
    expect(written.bytes).toBe(written.planned);
  });

  it('that fails while the next shard is looked at leaves nothing, and nothing runs on', async () => {
    const bad = tensorOf(new Array(64 * 64).fill(NaN), [64, 64]);
    const output = freshPath();
    const error = await failure(() =>
      quantizeModel(modelFolder([{ 'bad.weight': bad, ...ordinary(1) }, ordinary(2), ordinary(3)]), output),
    );
    expect(error.code).toBe('ERR_NON_FINITE_WEIGHT');
    expect(beside(output)).toEqual([]);
    const stop = new AbortController();
    counting((path) => {
      if (path.includes('00002')) stop.abort(new Error('enough'));
    });
    const input = modelFolder([ordinary(1), ordinary(2), ordinary(3)]);
    const aborted = await failure(() => quantizeModel(input, output, { signal: stop.signal }));
    expect(aborted.message).toBe('enough');
    expect(beside(output)).toEqual([]);
  });
});
