import * as fs from 'node:fs';
import { dirname } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { quantizeModel as quantizeHere } from '../../lib/calibrate/weighing/quantize.js';
import { beside, freshPath, modelFolder, randomTensor, snapshot } from '../support/checkpoints.js';
import { expectFailure, hqq } from '../support/cli.js';
import { hasRedis, Redis } from '../support/redis.js';

const many = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ [`layers.${i}.up.weight`]: randomTensor([64, 64], i) }));

describe('wrong usage', () => {
  it.each<[string[], RegExp]>([
    [['worker', '--root', '.'], /Expected --queue <url>: Redis/],
    [['worker', '--queue', 'redis://localhost'], /Expected --root <path>: the shared folder/],
    [
      ['worker', '--queue', 'redis://a', '--root', '.', '--concurrency', '0'],
      /Expected --concurrency to be an integer/,
    ],
    [['quantize', 'a', '--out', 'b', '--attach'], /Expected --queue <url> with --attach\./],
    [['quantize', 'a', '--out', 'b', '--queue', 'http://:sesame@a'], /to be a URL of Redis, .* got another text/],
  ])('%j', async (args, message) => {
    const result = await hqq(args);
    expectFailure(result, 2, message);
    expect(result.stderr).not.toContain('sesame');
  });
});

describe.skipIf(!hasRedis())('the command line', () => {
  const redis = new Redis('sesame');
  beforeAll(() => redis.start());
  afterAll(() => redis.remove());

  it('works, plans, is left with Ctrl-C and joined again', async () => {
    const root = fs.realpathSync(dirname(dirname(freshPath())));
    const input = modelFolder(many(3));
    const [whole, output] = [freshPath(), freshPath()];
    await quantizeHere(input, whole, { nbits: 3 });
    const env = { HQQ_REDIS_PASSWORD: 'sesame' };
    const quantize = [
      ...['quantize', input, '--out', output, '--nbits', '3', '--json'],
      ...['--queue', redis.url, '--queue-root', root],
    ];
    // Nobody works yet.
    const left = await hqq(quantize, {
      env,
      onStart: (child) => {
        const look = setInterval(() => {
          if (!fs.existsSync(`${output}.queue`) && child.exitCode === null) return;
          clearInterval(look);
          child.kill('SIGINT');
        }, 100);
      },
    });
    expect(left).toMatchObject({
      status: 130,
      stdout: '',
      stderr: expect.stringMatching(/left; the run goes on.*--attach/),
    });
    expect(beside(output)).toEqual(['out.queue']);

    let stop = () => {};
    const worker = hqq(['worker', '--queue', redis.url.replace('//', '//:sesame@'), '--root', root], {
      onStart: (child) => {
        stop = () => child.kill('SIGTERM');
      },
    });
    const joined = await hqq([...quantize, '--attach'], { env });
    stop();
    expect(JSON.parse(joined.stdout)).toMatchObject({ output, totals: { weights: 3 * 4096 } });
    expect(joined.status).toBe(0);
    expect(snapshot(output)).toEqual(snapshot(whole));
    expect(beside(output)).toEqual(['out']);
    const { status, stdout, stderr } = await worker;
    expect(status).toBe(0);
    expect(stdout).toBe(`working for ${redis.url}\n`);
    expect(stderr).toMatch(/^hqq: begins model-0000\d-of-00003\.safetensors \(run [0-9a-f]{16}\)\n/);
    expect(stderr).toMatch(/\nhqq: done: finish \(run [0-9a-f]{16}\)\nhqq: stopping: /);
    expect(stderr).not.toContain('sesame');
  });
});
