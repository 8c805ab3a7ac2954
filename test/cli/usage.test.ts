import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { OPTION_NAMES } from '../../lib/matrix/options.js';
import { expectFailure, expectJsonFailure, hqq } from '../support/cli.js';

const COMMANDS = ['quantize', 'dequantize', 'inspect', 'compare', 'generate', 'perplexity', 'bench', 'doctor'];
const manifest = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

describe('help', () => {
  test('without arguments goes to standard error, with status 2', async () => {
    const { status, stdout, stderr } = await hqq([], {});
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    for (const command of COMMANDS) expect(stderr).toContain(`hqq ${command}`);
  });

  test.each([['--help'], ['-h'], ['help']])('hqq %s', async (arg) => {
    const { status, stdout, stderr } = await hqq([arg]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toContain('hqq quantize <model> --out <path>');
    const guide = readFileSync(new URL('../../docs/cli.md', import.meta.url), 'utf8');
    for (const row of ['2  wrong usage: what is wrong whatever the model holds', '130, 143, 129  interrupted']) {
      const [status, meaning] = row.split('  ');
      expect(stdout).toMatch(new RegExp(`${status} +${meaning}`));
      expect(guide).toContain(`| ${status} | ${meaning}`); // help and guide say the same
    }
  });

  test.each(COMMANDS)('of %s, both ways, whatever else is wrong', async (command) => {
    const one = await hqq([command, '--help']);
    const two = await hqq(['help', command]);
    expect(one.stdout).toBe(two.stdout);
    expect(one).toMatchObject({ status: 0, stderr: '' });
    expect((await hqq([command, '--nonsense', '--help'])).stdout).toBe(one.stdout);
    expect(one.stdout).toContain('--json');
  });

  test('of quantize names every option of the library with its default, but what single matrices alone take', async () => {
    const { stdout } = await hqq(['quantize', '--help']);
    for (const name of OPTION_NAMES.filter((name) => name !== 'trace'))
      expect(stdout).toContain(`--${name.replaceAll(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}`);
    expect(stdout).toMatch(
      /--nbits <value> .*one of 8, 6, 5, 4, 3, 2, 1.58, 1, or .* several different ones, such as 4,8 \(default 4\)/,
    );
    expect(stdout).toMatch(/--meta-dtype <value> .*auto, float16, float32 \(default auto\)/);
  });

  test('--version', async () => {
    expect(await hqq(['--version'], {})).toEqual({
      status: 0,
      signal: null,
      stdout: `${manifest.version}\n`,
      stderr: '',
    });
  });
});

describe('wrong usage is said before anything is read', () => {
  // The model does not exist: reading it first would be another error.
  const q = ['quantize', '/nope', '--out', '/nope-out'];
  test.each<[args: string[], message: RegExp]>([
    [['quantise'], /Unknown command "quantise"\. Did you mean "quantize"\?/],
    [['frobnicate'], /Unknown command "frobnicate"\. Commands: quantize, /],
    [['--json', 'inspect'], /Expected a command before --json/],
    [['quantise', '--json'], /Did you mean "quantize"/],
    [[...q, '--json', '--nbits', '7'], /got 7\./],
    [['inspect', '--json'], /Expected <model>/],
    [['--versoin'], /Expected a command before --versoin: .* Did you mean --version\?/],
    [['--hlep'], /Did you mean --help\?/],
    [['help', 'inspct'], /Did you mean "inspect"\?/],
    [[...q, '--nbit', '4'], /Unknown flag --nbit\. Did you mean --nbits\?/],
    [[...q, '-q'], /Unknown flag -q\. Did you mean --queue or .* or --quiet\?/],
    [[...q, '-d'], /Unknown flag -d\. Did you mean --dry-run\?/],
    [[...q, '--groupSize', '64'], /Did you mean --group-size\?/],
    [[...q, '--group_size=64'], /Did you mean --group-size\?/],
    [[...q, '-n', '4'], /Unknown flag -n\./],
    [[...q, '--nbits', '7'], /Expected --nbits to be one of 8, .* got 7\./],
    [[...q, '--nbits', 'four'], /Expected --nbits .* got "four"\./],
    [[...q, '--nbits', ''], /Expected --nbits .* got ""\./],
    [[...q, '--nbits'], /Expected a value after --nbits: one of 8, .* Got nothing\./],
    [[...q, '--nbits', '--json'], /Expected a value after --nbits: .* Got --json\./],
    [[...q, '--nbits', '4', '--nbits=3'], /--nbits is given twice\./],
    [[...q, '--group-size', '-64'], /Expected --group-size to be a positive integer, .* got -64\./],
    [[...q, '--group-size', 'nine'], /got "nine"\./],
    [[...q, '--axis', '2'], /Expected --axis to be 0 or 1, got 2\./],
    [[...q, '--solver', 'minmex'], /Expected --solver .* got "minmex"\. Did you mean "minmax"\?/],
    [
      [...q, '--lp-norm', '1.5'],
      /Expected --lp-norm to be a number in \(0, 1\], or 2 for squares, or auto, got 1\.5\./,
    ],
    [[...q, '--beta', 'NaN'], /Expected --beta /],
    [[...q, '--kappa', '0.5'], /Expected --kappa /],
    [[...q, '--iterations', '1.5'], /Expected --iterations /],
    [[...q, '--round-zero=yes'], /--round-zero takes no value, got "yes"\./],
    [[...q, '--meta-dtype', 'bfloat16'], /Expected --meta-dtype to be one of auto, float16, float32, got "bfloat16"\./],
    [[...q, '--threads', '0'], /Expected --threads to be an integer in \[1, 256\], got 0\./],
    [[...q, '--include', ''], /Expected --include to be a glob, got ""\./],
    [[...q, '--override', 'lm_head'], /Expected --override to be a glob, a colon and options/],
    [[...q, '--override', 'a*:nbit=8'], /Unknown option "nbit" in --override\. Did you mean "nbits"\?/],
    [[...q, '--override', 'a*:nbits=9'], /Expected nbits in --override to be one of .* got 9\./],
    [
      [...q, '--override', 'a*:round-zero=maybe'],
      /Expected round-zero in --override to be true or false, got "maybe"\./,
    ],
    [[...q, '--solver', 'hqq', '--zero-point', 'integer'], /Expected --zero-point to be float for solver hqq/],
    [
      [...q, '--solver', 'hqq', '--override', 'a]:*:zero-point=integer'],
      /Expected zero-point in --override "a\]:\*" to be float for solver hqq/,
    ],
    [['quantize', '/nope'], /Expected --out <path>/],
    [['quantize', '/nope', '/nope-out'], /Unexpected argument "\/nope-out": .* Did you mean --out \/nope-out\?/],
    [['quantize', '/nope', '--out', ''], /Expected --out to be a path, got ""\./],
    [['quantize', ''], /Expected <model> to be a path, got ""\./],
    [['quantize', '--out', 'x'], /Expected <model> after "hqq quantize"\./],
    [['dequantize', '/nope', '--out', 'x', '--dtype', 'bfloat61'], /Expected --dtype .* Did you mean "bfloat16"\?/],
    [['inspect'], /Expected <model> after "hqq inspect"\./],
    [['inspect', '/nope', '/nope'], /Unexpected argument "\/nope"/],
    [['inspect', 'file:///nope'], /Write the path, "\/nope"/],
    [['compare', '/nope'], /Expected <quantized> after "hqq compare \/nope"\./],
    [['bench', '--size', '100'], /Expected --size to be a multiple of 64, got 100\./],
    [['doctor', 'now'], /Unexpected argument "now": "hqq doctor" takes no arguments\./],
  ])('hqq %j', async (args, message) => {
    const result = await hqq(args);
    if (args.includes('--json')) expectJsonFailure(result, 2, 'ERR_INVALID_OPTION', message);
    else expectFailure(result, 2, message);
  });

  test('by a process of its own too', async () => {
    const wrong = [...q, '--nbits', '7'];
    expectFailure(await hqq(wrong, {}), 2, /got 7\./);
    expectJsonFailure(await hqq([...wrong, '--json'], {}), 2, 'ERR_INVALID_OPTION', /got 7\./);
  });

  test('--json behind -- is no flag', async () => {
    expectFailure(await hqq(['inspect', '--', '--json']), 1, /Cannot read --json/);
  });

  test('what follows -- is an argument, whatever it looks like', async () => {
    expectFailure(await hqq(['inspect', '--', '--help']), 1, /Cannot read --help\. It does not exist/);
  });

  test('an environment that demands nonsense is wrong usage too', async () => {
    expectFailure(await hqq(['bench'], { env: { HQQ_BACKEND: 'natve' } }), 2, /HQQ_BACKEND .* Did you mean "native"\?/);
  });
});
