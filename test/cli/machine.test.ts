import { describe, expect, test } from 'vitest';
import { availableBackends } from '../../lib/backend/index.js';
import { expectFailure, hqq } from '../support/cli.js';

// The commands that need no model.

const native = availableBackends().length > 1;

describe('doctor', () => {
  test('tells the choice and its reason', async () => {
    const { status, stdout, stderr } = await hqq(['doctor'], {});
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(native ? /backend +native, / : /backend +JavaScript/);
    expect(stdout).toMatch(
      /why +the (native )?addon (loads, and of its instruction sets \w+ is the fastest|does not load here)/,
    );
    expect(stdout).toMatch(/loader +(loaded|failed) \//);
  });

  test('--json', async () => {
    const { stdout } = await hqq(['doctor', '--json'], { env: { HQQ_BACKEND: 'js' } });
    const report = JSON.parse(stdout) as Record<string, unknown>;
    expect(report).toMatchObject({ chosen: { name: 'js', isa: 'js' }, environment: { HQQ_BACKEND: 'js' } });
    expect(report).toHaveProperty('attempts');
  });

  test('JavaScript is no failure', async () => {
    const { status, stdout } = await hqq(['doctor'], { env: { HQQ_BACKEND: 'js' } });
    expect(status).toBe(0);
    expect(stdout).toMatch(/backend +JavaScript\n +why +HQQ_BACKEND=js asks for it\n/);
  });

  test('what is demanded and cannot be had is one', async () => {
    const { status, stdout } = await hqq(['doctor'], { env: { HQQ_ISA: 'avx1024' } });
    expect(status).toBe(1);
    expect(stdout).toMatch(/backend +none: every call fails\n +why .*avx1024/);
  });
});

describe('bench', () => {
  interface Report {
    readonly memcpy: { readonly seconds: number };
    readonly rows: readonly {
      operation: string;
      isa: string;
      threads: number;
      weightsPerSecond: number;
      timesMemcpy: number;
      batch?: number;
      activations?: string;
      flopPerSecond?: number;
    }[];
  }

  test('measures every operation on native code and JavaScript', async () => {
    const { status, stdout } = await hqq(['bench', '--size', '128', '--json'], {});
    const report = JSON.parse(stdout) as Report;
    expect(status).toBe(0);
    expect(report.memcpy.seconds).toBeGreaterThan(0);
    for (const operation of ['quantize', 'pack', 'unpack', 'dequantize']) {
      const isas = report.rows.filter((row) => row.operation === operation).map((row) => row.isa);
      expect(isas).toContain('js');
      if (native) expect(isas).toContain(availableBackends()[0]);
    }
    for (const row of report.rows) {
      expect(row.weightsPerSecond).toBeGreaterThan(0);
      expect(row.timesMemcpy).toBeGreaterThan(0);
    }
  });

  test('measures products of one row and of many, with both activations, on native code and JavaScript', async () => {
    const { status, stdout } = await hqq(['bench', '--size', '128', '--json']);
    const { rows } = JSON.parse(stdout) as Report;
    expect(status).toBe(0);
    for (const isa of native ? ['js', availableBackends()[0]] : ['js']) {
      const products = rows.filter((row) => row.operation === 'linear' && row.isa === isa && row.threads === 1);
      expect(products.map(({ batch, activations }) => `${batch} ${activations}`)).toEqual([
        '1 float32',
        '1 int8',
        '64 float32',
        '64 int8',
      ]);
      for (const { batch, weightsPerSecond, flopPerSecond } of products)
        expect(flopPerSecond).toBe(2 * batch! * weightsPerSecond);
      expect(rows.filter((row) => row.operation === 'layOut' && row.isa === isa)).not.toEqual([]);
    }
    expect(rows.filter((row) => row.flopPerSecond !== undefined && row.operation !== 'linear')).toEqual([]);
  });

  test('says machine, unit and rates', async () => {
    const { stdout } = await hqq(['bench', '--size', '64'], { env: { HQQ_BACKEND: 'js' } });
    expect(stdout).toMatch(/machine +.*no native backend/);
    expect(stdout).toMatch(/memcpy +.*\/s: the unit/);
    expect(stdout).toMatch(/quantize +js +1 +64 x 64 .* weights\/s\n/);
    expect(stdout).toMatch(/multiply 1 row, float32 +js +1 +64 x 64 .*FLOP\/s\n/);
    expect(stdout).toMatch(/multiply 64 rows, int8 +js +1 +64 x 64 .*FLOP\/s\n/);
  });

  test('stops at once when it is interrupted', async () => {
    const child = hqq(['bench'], {
      shell: 'timeout --preserve-status -s INT 1 $HQQ bench',
      env: { HQQ_BACKEND: 'js' },
    });
    const result = await child;
    expectFailure(result, 130, /^hqq: interrupted\.\n$/);
  });
});

test('the warning that JavaScript computes is one line, and the results come all the same', async () => {
  if (native) return;
  const { status, stderr } = await hqq(['bench', '--size', '64'], {});
  expect(status).toBe(0);
  expect(stderr).toMatch(/^hqq: hqq computes in JavaScript[^\n]*\n$/);
});
