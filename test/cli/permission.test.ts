import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { availableBackends } from '../../lib/backend/index.js';
import { freshPath, llama, modelFolder } from '../support/checkpoints.js';
import { type CliResult, hqq } from '../support/cli.js';
import { SHIPPED } from '../support/language-models.js';

// What Node.js forbids by flags of its own: addons, files, threads.

const native = availableBackends().length > 1;
const PERMISSION = process.allowedNodeEnvironmentFlags.has('--permission')
  ? '--permission'
  : '--experimental-permission';

const under = (
  flags: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<CliResult> => hqq(args, { env: { ...env, NODE_OPTIONS: flags } });

describe.runIf(native)('the addon', () => {
  test('is said to be forbidden, not missing, by doctor', async () => {
    const { status, stdout } = await under('--no-addons', ['doctor']);
    expect(status).toBe(0);
    expect(stdout).toMatch(/backend +JavaScript\n/);
    expect(stdout).toMatch(
      /to fix +Node\.js is told not to load addons: start it without --no-addons \(NODE_OPTIONS\?\)\. /,
    );
    expect(stdout).toMatch(/Without, JavaScript computes the same results, many times slower\./);
    expect(stdout).not.toMatch(/build it|build-native|CMake|install it/i);
  });

  test('is wanted with another flag where permissions are in force', async () => {
    const { stdout } = await under(`${PERMISSION} --allow-fs-read=*`, ['doctor']);
    expect(stdout).toMatch(/to fix +Node\.js is told not to load addons: add --allow-addons to --permission\. /);
    const allowed = await under(`${PERMISSION} --allow-fs-read=* --allow-addons`, ['doctor']);
    expect(allowed.stdout).toMatch(/backend +native, /);
    const both = await under(`${PERMISSION} --allow-fs-read=* --no-addons`, ['doctor']);
    expect(both.stdout).toMatch(/start it without --no-addons \(NODE_OPTIONS\?\), and add --allow-addons/);
  });

  test('is no reason to build one for who demands it', async () => {
    const { status, stderr } = await under('--no-addons', ['bench', '--size', '64'], { HQQ_BACKEND: 'native' });
    expect(status).toBe(1);
    expect(stderr).toMatch(/HQQ_BACKEND=native demands the native backend.*start it without --no-addons/);
    expect(stderr).not.toMatch(/build it|build-native/);
  });
});

describe('files', () => {
  test('are written where that is allowed, though none can be synced', async () => {
    const model = modelFolder([llama()]);
    const [plain, out] = [freshPath(), freshPath()];
    await hqq(['quantize', model, '--out', plain], {});
    const flags = `${PERMISSION} --allow-fs-read=* --allow-fs-write=${join(out, '..')}/*`;
    const { status, stderr } = await under(flags, ['quantize', model, '--out', out]);
    expect(status, stderr).toBe(0);
    expect(fs.readFileSync(join(out, 'model.safetensors'))).toEqual(fs.readFileSync(join(plain, 'model.safetensors')));
  });

  test('that may not be are told with the flag that allows it', async () => {
    const out = freshPath();
    const flags = `${PERMISSION} --allow-fs-read=*`;
    const { status, stderr } = await under(flags, ['quantize', modelFolder([llama()]), '--out', out]);
    expect(status).toBe(1);
    expect(stderr).toMatch(/Cannot create .*\. Node\.js was started with --permission.*--allow-fs-write/);
  });
});

test('the thread of a tokenizer is told with the flag that allows it', async () => {
  const args = ['generate', SHIPPED, '--prompt', 'The sea', '--max-tokens', '2'];
  const files = `${PERMISSION} --allow-fs-read=*`;
  const { status, stderr } = await under(files, args, { HQQ_BACKEND: 'js' });
  expect(status).toBe(1);
  expect(stderr).toMatch(/Text needs a thread.*Add --allow-worker\.\n/);
  expect((await under(`${files} --allow-worker`, args, { HQQ_BACKEND: 'js' })).status).toBe(0);
});
