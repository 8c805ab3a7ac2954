import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { expectFailure, hqq } from '../support/cli.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

const scratch = scratchFolder('cli-plan');
const out = join(scratch, 'plan.json');
const few = ['--probe-tokens', '32', '--tokens', '64', '--target-bits', '3.3'];

describe('hqq plan', () => {
  test('writes a plan that hqq quantize takes', async () => {
    const { stdout } = await hqq(['plan', SHIPPED, '--out', out, ...few], {});
    expect(stdout).toMatch(/layers .*bits/);
    expect(stdout).toMatch(/trade-off +predicted divergence/);
    expect(stdout).toContain(`--plan ${out}`);
    const plan = JSON.parse(readFileSync(out, 'utf8')) as { report: { bitsPerWeight: number } };
    const quantized = ['quantize', SHIPPED, '--out', join(scratch, 'q'), '--dry-run', '--json', '--plan', out];
    const { totals } = JSON.parse((await hqq(quantized)).stdout) as { totals: { bitsPerWeight: number } };
    expect(totals.bitsPerWeight).toBeCloseTo(plan.report.bitsPerWeight, 4);
    expectFailure(await hqq(['plan', SHIPPED, '--out', out, ...few]), 1, /plan\.json.*exists.*--force/);
    const again = await hqq(['plan', SHIPPED, '--out', out, ...few, '--force', '--json']);
    expect(JSON.parse(again.stdout)).toMatchObject({ output: out, plan });
  });

  test('says what is wrong before anything is read', async () => {
    expectFailure(await hqq(['plan', 'nothing', '--out', out]), 2, /--target-bits or --target-size, got neither/);
    expectFailure(
      await hqq(['plan', 'nothing', '--out', out, '--target-bits', '9']),
      2,
      /--target-bits to be a number/,
    );
    expectFailure(
      await hqq(['plan', 'nothing', '--out', out, '--target-size', 'big']),
      2,
      /--target-size to be a size/,
    );
    expectFailure(
      await hqq(['plan', 'nothing', '--out', out, ...few, '--widths', '3,7']),
      2,
      /--widths to be different/,
    );
    expectFailure(await hqq(['plan', 'nothing', '--out', join(scratch, 'other.json'), ...few]), 1, /nothing/);
  });
});
