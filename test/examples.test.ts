import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));

/** What runs each example, all of it part of .ci/run. */
const RUN_BY: Readonly<Record<string, string>> = {
  'demo.mjs': 'test/examples.test.ts',
  'demo-generate.mjs': 'examples/demo.mjs',
  browser: 'scripts/install/engines.mjs',
};

describe('examples', () => {
  test('each is run by something', () => {
    const examples = readdirSync(`${root}examples`).filter((name) => name !== 'models');
    expect(examples.sort()).toEqual(Object.keys(RUN_BY).sort());
    for (const [example, file] of Object.entries(RUN_BY)) expect(readFileSync(root + file, 'utf8')).toContain(example);
  });

  test('demo.mjs runs to its end', async () => {
    const child = spawn(process.execPath, ['examples/demo.mjs'], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (output += text));
    const [status] = (await once(child, 'close')) as [number];
    expect(status, output).toBe(0);
    expect(output).toContain('The same file from both backends, byte for byte');
    expect(output).toMatch(/error +8\.26 % relative/);
    // Each of the three models goes on from the prompt.
    expect(output.match(/^ {2}(?:float32|4 bits|3 bits) .* tokens\/s$/gm)).toHaveLength(3);
    expect(output.match(/^ {2}And the Lord said \w+/gm)).toHaveLength(3);
  });
});
