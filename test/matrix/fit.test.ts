import * as fs from 'node:fs';
import { describe, expect, test } from 'vitest';
import { QuantizedLinear } from '../../lib/compute/linear.js';
import { dequantizeSync, quantize, quantizeSync } from '../../lib/compute/quantize.js';
import { NBITS, type NBits, type QuantConfig } from '../../lib/matrix/config.js';
import { formOf } from '../../lib/matrix/fit.js';
import { formatFor, holdsRows } from '../../lib/matrix/format.js';
import type { Weight } from '../../lib/matrix/weight.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { encode, freshPath, randomTensor, randomWeights } from '../support/checkpoints.js';
import { hqq } from '../support/cli.js';
import { seededRandom } from '../support/random.mjs';

type Shape = readonly [number, number];

const weightOf = (shape: Shape): Weight => ({
  data: randomWeights(shape[0] * shape[1], shape[0]),
  dtype: 'float32',
  shape,
});

/** `<group size> <axis> <packing>: <adapted>`, or why not. */
function told(shape: Shape, config: QuantConfig = {}): string {
  const form = formOf(shape, config);
  if ('reason' in form) return `${form.reason}; nearest ${form.sizes.join(', ')}`;
  return `${form.config.groupSize} ${form.config.axis} ${form.format.packing}: ${form.adapted}`;
}

describe('defaults', () => {
  test.each<readonly [shape: Shape, config: QuantConfig, told: string]>([
    [[64, 64], {}, '64 1 4bit_u8: undefined'],
    [[13, 64], {}, '32 1 4bit_u8: group size 32: 13 groups of 64 do not pack into 4bit_u8'],
    [[1, 64], {}, '32 1 4bit_u8: group size 32: 1 group of 64 does not pack into 4bit_u8'],
    [[3, 64], {}, '32 1 4bit_u8: group size 32: 3 groups of 64 do not pack into 4bit_u8'],
    [[172, 64], { nbits: 1 }, '32 1 1bit_u8: group size 32: 172 groups of 64 do not pack into 1bit_u8'],
    [[5, 100], {}, '50 1 4bit_u8: group size 50: groups of 64 do not divide 5 x 100 weights'],
    [[5, 14], {}, '35 1 4bit_u8: group size 35: groups of 64 do not divide 5 x 14 weights'],
    [[7, 63], {}, '63 1 8bit_u8: group size 63, stored as 8bit_u8: groups of 64 do not divide 7 x 63 weights'],
    [[7, 13], {}, '13 1 8bit_u8: group size 13, stored as 8bit_u8: groups of 64 do not divide 7 x 13 weights'],
    [[2, 4099], {}, '4099 1 4bit_u8: group size 4099: groups of 64 do not divide 2 x 4099 weights'],
    [[1, 1], {}, '1 1 8bit_u8: group size 1, stored as 8bit_u8: groups of 64 do not divide 1 x 1 weights'],
    [[1, 64], { axis: 0 }, '64 0 4bit_u8: undefined'],
    [[5, 100], { axis: 0 }, '50 0 4bit_u8: group size 50: groups of 64 do not divide 5 x 100 weights'],
    [[3, 64], { axis: 1, nbits: 2 }, '16 1 2bit_u8: group size 16: 3 groups of 64 do not pack into 2bit_u8'],
    [[7, 63], { nbits: 3 }, '63 1 3bit_32: group size 63: groups of 64 do not divide 7 x 63 weights'],
    [[7, 63], { nbits: 8 }, '63 1 8bit_u8: group size 63: groups of 64 do not divide 7 x 63 weights'],
  ])('of %j with %j: %s', (shape, config, expected) => {
    expect(told(shape, config)).toBe(expected);
  });

  test('fit every shape, in groups that no option forbids', () => {
    for (let rows = 1; rows <= 40; rows++) {
      for (let cols = 1; cols <= 140; cols++) {
        for (const nbits of NBITS) {
          const form = formOf([rows, cols], { nbits });
          if ('reason' in form) throw new Error(`${rows} x ${cols}: ${form.reason}`);
          const { geometry, format, config, adapted } = form;
          expect((rows * cols) % config.groupSize).toBe(0);
          expect(holdsRows(format, geometry.rows)).toBe(true);
          const usual = config.groupSize === 64 && config.axis === 1 && format === formatFor(nbits);
          expect(adapted === undefined).toBe(usual);
        }
      }
    }
  });
});

describe('what was asked for', () => {
  test.each<readonly [shape: Shape, config: QuantConfig, told: string]>([
    [[3, 64], { groupSize: 64 }, '64 0 4bit_u8: axis 0: 3 groups of 64 do not pack into 4bit_u8'],
    [[3, 64], { groupSize: 64, axis: 1 }, '64 1 8bit_u8: stored as 8bit_u8: 3 groups of 64 do not pack into 4bit_u8'],
    [[5, 14], { groupSize: 14 }, '14 0 4bit_u8: axis 0: 5 groups of 14 do not pack into 4bit_u8'],
    [[3, 5], { groupSize: 5 }, '5 1 8bit_u8: stored as 8bit_u8: 3 groups of 5 do not pack into 4bit_u8'],
    [[13, 30], { nbits: 3, groupSize: 30 }, '30 1 3bit_32: undefined'],
    [[3, 64], { groupSize: null, axis: 1 }, '64 1 8bit_u8: stored as 8bit_u8: 3 groups of 64 do not pack into 4bit_u8'],
    [[4, 63], { groupSize: null }, '63 1 4bit_u8: undefined'],
    [[5, 100], { groupSize: 64 }, 'groups of 64 do not divide 5 x 100 weights; nearest 50, 100'],
    [[7, 63], { groupSize: 64, axis: 1 }, 'groups of 64 do not divide 7 x 63 weights; nearest 63, 147'],
    [[1, 64], { groupSize: 128 }, 'groups of 128 do not divide 1 x 64 weights; nearest 64'],
    [
      [46337, 46337],
      { groupSize: 2 ** 30 },
      'groups of 1073741824 do not divide 46337 x 46337 weights; nearest 46337, 2147117569',
    ],
  ])('%j with %j is kept or refused: %s', (shape, config, expected) => {
    expect(told(shape, config)).toBe(expected);
  });

  test('is never given up, whatever the shape', () => {
    const random = seededRandom();
    const below = (n: number) => Math.floor(random() * n);
    for (let i = 0; i < 20_000; i++) {
      const shape: Shape = [1 + below(70), 1 + below(130)];
      const nbits = NBITS[below(NBITS.length)] as NBits;
      const groupSize = random() < 0.5 ? undefined : random() < 0.2 ? null : 1 + below(100);
      const axis = random() < 0.5 ? undefined : (below(2) as 0 | 1);
      const config = {
        nbits,
        ...(groupSize === undefined ? {} : { groupSize }),
        ...(axis === undefined ? {} : { axis }),
      };
      const form = formOf(shape, config);
      if ('reason' in form) {
        expect((shape[0] * shape[1]) % (groupSize as number)).toBeGreaterThan(0);
        continue;
      }
      expect(form.config.nbits).toBe(nbits);
      if (axis !== undefined) expect(form.config.axis).toBe(axis);
      const whole = shape[form.config.axis];
      if (groupSize !== undefined) expect(form.config.groupSize).toBe(groupSize ?? whole);
    }
  });
});

describe('quantize', () => {
  test.each<Shape>([
    [1, 1],
    [1, 2],
    [1, 64],
    [3, 64],
    [5, 100],
    [7, 63],
    [7, 13],
    [3, 5],
    [1, 131],
    [131, 1],
    [2, 4099],
  ])('takes %d x %d, says what it took, and multiplies with it', async (...shape) => {
    const weight = weightOf(shape);
    for (const nbits of [8, 4, 3, 2, 1] as const) {
      const q = await quantize(weight, { nbits });
      expect(q).toEqual(quantizeSync(weight, { nbits }));
      expect(Object.isFrozen(q)).toBe(true);
      const form = formOf(shape, { nbits });
      if ('reason' in form) throw new Error(form.reason);
      const { groupSize, axis } = form.config;
      expect(q).toMatchObject({ groupSize, axis, packing: form.format.packing });
      expect(q.adapted).toBe(form.adapted);
      expect('adapted' in q).toBe(form.adapted !== undefined);
      const values = dequantizeSync(q);
      if (nbits === 8) expect(q.stats.relativeError).toBeLessThan(0.02);
      const layer = new QuantizedLinear(q);
      const x = randomWeights(shape[1], 7, 1);
      const y = layer.forwardSync(x);
      for (let o = 0; o < shape[0]; o++) {
        let sum = 0;
        for (let i = 0; i < shape[1]; i++) sum += x[i]! * values[o * shape[1] + i]!;
        expect(Math.abs(y[o]! - sum)).toBeLessThan(1e-4);
      }
    }
  });

  test('refuses a group size that was asked for, with the nearest that fit', () => {
    const attempt = (config: QuantConfig) => () => quantizeSync(weightOf([5, 100]), config);
    expect(attempt({ groupSize: 64 })).toThrow(
      expect.objectContaining({
        code: 'ERR_GROUP_SIZE',
        message:
          'Expected groupSize to divide 5 x 100 weights, got 64. Nearest sizes that do: 50, 100. Without groupSize, one that fits is taken.',
      }),
    );
    expect(attempt({ groupSize: undefined as never })).not.toThrow();
    expect(attempt({ groupSize: 20 })).not.toThrow();
  });
});

describe('a whole model', () => {
  const source = {
    'odd.weight': randomTensor([7, 63], 1),
    'head.weight': randomTensor([5, 100], 2),
    'even.weight': randomTensor([64, 64], 3),
  };
  const input = () => {
    const path = freshPath('in.safetensors');
    fs.writeFileSync(path, encode(source));
    return path;
  };
  const adapted = [
    ['odd.weight', 63, 'group size 63, stored as 8bit_u8: groups of 64 do not divide 7 x 63 weights'],
    ['head.weight', 50, 'group size 50: groups of 64 do not divide 5 x 100 weights'],
    ['even.weight', 64, undefined],
  ];

  test('adapts where nothing was asked for, in the program and on the command line', async () => {
    const { tensors } = await quantizeModel(input(), freshPath('out.safetensors'));
    expect(tensors.map(({ name, config, adapted }) => [name, config.groupSize, adapted])).toEqual(adapted);
    const { status, stdout } = await hqq(['quantize', input(), '--out', freshPath('out.safetensors'), '--nbits=4'], {});
    expect(status).toBe(0);
    expect(stdout).toContain('odd.weight: group size 63, stored as 8bit_u8');
  });

  const refusal =
    'Expected groupSize (--group-size) to divide the weights of every layer that it was asked for, got 64 for "odd.weight" (7 x 63), ' +
    '"head.weight" (5 x 100). Leave it out, and such layers take a size that fits; or give them one of their own, as in ' +
    'overrides: { "odd": { groupSize: 63 } } (--override "odd:group-size=63"); or exclude them (exclude, --exclude).';

  test('refuses what was asked for and does not fit, before anything is written', async () => {
    const out = freshPath('out.safetensors');
    const refused = expect.objectContaining({ code: 'ERR_GROUP_SIZE', message: refusal });
    await expect(quantizeModel(input(), out, { groupSize: 64 })).rejects.toEqual(refused);
    await expect(quantizeModel(input(), out, { overrides: { '*': { groupSize: 64 } } })).rejects.toEqual(refused);
    const { status, stderr } = await hqq(['quantize', input(), '--out', out, '--group-size', '64'], {});
    expect(status).toBe(1);
    expect(stderr).toContain(refusal);
    expect(fs.existsSync(out)).toBe(false);
  });

  test('does what the refusal advises', async () => {
    const overrides = { odd: { groupSize: 63 }, head: { groupSize: 50 } };
    const { tensors } = await quantizeModel(input(), freshPath('out.safetensors'), { groupSize: 64, overrides });
    expect(tensors.map(({ config }) => config.groupSize)).toEqual([63, 50, 64]);
    // What an override does not name stays as it was asked for, or not asked for, before it.
    const mixed = await quantizeModel(input(), freshPath('out.safetensors'), { overrides: { odd: { nbits: 3 } } });
    expect(mixed.tensors.map(({ config }) => config.groupSize)).toEqual([63, 50, 64]);
  });
});
