import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { bitsOf } from '../lib/compute/floats.js';
import { quantizeSync } from '../lib/compute/quantize.js';
import type { DType } from '../lib/matrix/dtype.js';
import { MODELS } from './support/language-models.js';

// No tensor of a real model is worse off with the default solver. Skipped, with a line that says so, where there are no models.

const DTYPES: Readonly<Record<string, DType>> = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' };

const filesOf = (folder: string): string[] => {
  try {
    return (readdirSync(folder, { recursive: true }) as string[])
      .filter((name) => name.endsWith('.safetensors'))
      .sort();
  } catch {
    return [];
  }
};

/** All that have rows: what has more sides than two, as convolutions do, is a matrix of its first side's rows. */
function* matricesOf(path: string) {
  const file = readFileSync(path);
  const begin = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, begin)) as Record<
    string,
    { readonly dtype: string; readonly shape: readonly number[]; readonly data_offsets: readonly [number, number] }
  >;
  for (const [name, { dtype, shape, data_offsets: [from, to] = [0, 0] }] of Object.entries(header)) {
    const numbers = DTYPES[dtype ?? ''];
    if (name === '__metadata__' || numbers === undefined || shape.length < 2 || from === to) continue;
    const rows = shape[0]!;
    const bytes = Uint8Array.from(file.subarray(begin + from, begin + to)); // aligned
    const data = bitsOf(bytes, numbers);
    yield { name, weight: { data, dtype: numbers, shape: [rows, data.length / rows] as const } };
  }
}

const files = filesOf(MODELS);
if (files.length === 0)
  console.log(`Skipped: what needs real models, none of which is in ${MODELS}. HQQ_MODELS says where.`);

test.skipIf(files.length === 0)(
  'joint is never worse than hqq or minmax on a tensor of a real model',
  () => {
    let count = 0;
    for (const file of files) {
      for (const { name, weight } of matricesOf(join(MODELS, file))) {
        for (const nbits of [4, 3, 2] as const) {
          const squares = (solver: 'joint' | 'hqq' | 'minmax') =>
            quantizeSync(weight, { solver, nbits }).stats.meanSquaredError;
          const others = Math.min(squares('hqq'), squares('minmax'));
          expect(squares('joint'), `${file}: ${name}, ${nbits} bits`).toBeLessThanOrEqual(others * (1 + 1e-6));
          count++;
        }
      }
    }
    expect(count).toBeGreaterThan(0);
  },
  300_000,
);
