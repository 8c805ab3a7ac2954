import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { expectFailure, hqq } from '../support/cli.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

const scratch = scratchFolder('cli-importance');
const at = (name: string) => join(scratch, name);
const weightsOf = (name: string) => readFileSync(join(at(name), 'model.safetensors'));

describe('hqq calibrate', () => {
  test('writes statistics, with which quantize gives what it gives by itself', async () => {
    const out = at('stats.safetensors');
    const made = await hqq(['calibrate', SHIPPED, '--out', out, '--tokens', '200', '--seed', '3', '--json'], {});
    expect(made.stderr).toBe('');
    expect(JSON.parse(made.stdout)).toEqual({
      ...{ model: SHIPPED, output: out, source: 'random', tokens: 200, layers: 22 },
    });
    const common = ['quantize', SHIPPED, '--solver', 'joint', '--nbits', '3', '--json'];
    const saved = await hqq([...common, '--out', at('a'), '--importance', out]);
    expect(JSON.parse(saved.stdout)).toMatchObject({ importance: out });
    const found = await hqq([...common, '--out', at('b'), '--tokens', '200', '--seed', '3']);
    expect(JSON.parse(found.stdout)).toMatchObject({ importance: 'random' });
    expect(weightsOf('a').equals(weightsOf('b'))).toBe(true);
    const none = await hqq([...common, '--out', at('c'), '--importance', 'none']);
    expect(JSON.parse(none.stdout)).toMatchObject({ importance: 'none' });
    expect(weightsOf('a').equals(weightsOf('c'))).toBe(false);
  });

  test('says what was made and what comes next', async () => {
    const { stdout, status } = await hqq(['calibrate', SHIPPED, '--out', at('said.safetensors'), '--tokens', '64']);
    expect(status).toBe(0);
    expect(stdout).toMatch(
      /^22 layers \(random, 64 tokens\)\nNext: hqq quantize .*--importance .*said\.safetensors\n$/,
    );
  });

  test('keeps what is there', async () => {
    const out = at('kept.safetensors');
    await hqq(['calibrate', SHIPPED, '--out', out, '--tokens', '64']);
    const before = readFileSync(out);
    expectFailure(await hqq(['calibrate', SHIPPED, '--out', out]), 1, /kept\.safetensors.*exists.*--force/);
    expect(readFileSync(out).equals(before)).toBe(true);
    expect((await hqq(['calibrate', SHIPPED, '--out', out, '--seed', '1', '--force', '--quiet'])).stdout).toBe('');
    expect(readFileSync(out).equals(before)).toBe(false);
  });

  test('refuses wrong flags before it reads anything', async () => {
    const out = ['--out', at('never.safetensors')];
    expectFailure(await hqq(['calibrate', 'nothing', ...out, '--importance', 'none']), 2, /got "none"/);
    expectFailure(
      await hqq(['calibrate', SHIPPED, '--out', at('x.gguf')]),
      2,
      /a \.safetensors file, got "?.*x\.gguf.*read, not written/,
    );
    expectFailure(await hqq(['calibrate', 'nothing', ...out, '--tokens', '0']), 2, /--tokens to be an integer in/);
    expectFailure(await hqq(['calibrate', 'nothing', ...out, '--seed', 'x']), 2, /--seed to be an integer/);
    expectFailure(await hqq(['calibrate', 'nothing', ...out]), 1, /nothing/);
    expect(existsSync(out[1]!)).toBe(false);
  });
});

test('hqq quantize shows where importance is from', async () => {
  const { stdout } = await hqq(['quantize', SHIPPED, '--out', at('shown'), '--solver', 'joint', '--tokens', '64'], {});
  expect(stdout).toMatch(/^\s*importance +random$/m);
});

test('hqq quantize lets no model read random tokens in JavaScript unless it is told to', async () => {
  const env = { HQQ_BACKEND: 'js' };
  const common = ['quantize', SHIPPED, '--json', '--tokens', '16'];
  const auto = JSON.parse((await hqq([...common, '--out', at('js')], { env })).stdout);
  expect(auto.importance).toBe('none');
  expect(auto.notes.join()).toMatch(/Importance is none: JavaScript computes here/);
  const told = await hqq([...common, '--out', at('js-random'), '--importance', 'random'], { env });
  expect(JSON.parse(told.stdout)).toMatchObject({ importance: 'random' });
});
