import { once } from 'node:events';
import { cpSync, truncateSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import { adapterFolder, someAdapter } from '../support/adapters.js';
import { expectFailure, hqq } from '../support/cli.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

const work = scratchFolder('language');

test.each(['generate', 'perplexity'])('the help of hqq %s names the package that text needs', async (command) => {
  expect((await hqq([command, '--help'])).stdout).toContain('npm install @huggingface/tokenizers');
});

describe('hqq generate', () => {
  test('streams text, or tells everything as JSON', async () => {
    const flags = ['--prompt', 'And the Lord said', '--max-tokens', '12'];
    const streamed = await hqq(['generate', SHIPPED, ...flags], {});
    expect(streamed).toMatchObject({ status: 0, stderr: '' });
    const { stdout } = await hqq(['generate', SHIPPED, ...flags, '--json'], {});
    const report = JSON.parse(stdout) as { text: string; ids: number[]; finish: string };
    expect(`${report.text}\n`).toBe(streamed.stdout);
    expect(report.ids).toHaveLength(12);
    expect(report.finish).toBe('length');
  });

  test('draws the same text for the same seed', async () => {
    const draw = async (seed: string) =>
      (
        await hqq([
          'generate',
          SHIPPED,
          '--prompt',
          'The',
          '--max-tokens',
          '20',
          '--temperature',
          '1',
          '--top-k',
          '50',
          '--seed',
          seed,
        ])
      ).stdout;
    const [one, again, two] = await Promise.all(['1', '1', '2'].map(draw));
    expect(one).toBe(again);
    expect(one).not.toBe(two);
  });

  test('has adapters beside the weights, and caches of any type', async () => {
    const one = adapterFolder(someAdapter(SHIPPED, 1, /q_proj/));
    const flags = [
      'generate',
      SHIPPED,
      '--prompt',
      'It was',
      '--max-tokens',
      '6',
      '--adapter',
      one,
      '--cache-dtype',
      'int8',
    ];
    const model = await loadLanguageModel(SHIPPED, { adapters: { one }, cacheDtype: 'int8' });
    let text = '';
    for await (const token of model.generate('It was', { maxTokens: 6, adapter: 'one' })) text += token.text;
    await model.close();
    expect(await hqq(flags)).toMatchObject({ status: 0, stdout: `${text}\n` });
    const file = join(work, 'adapted.txt');
    writeFileSync(file, 'It was the best of times. '.repeat(8));
    const measure = async (...more: string[]) =>
      (
        JSON.parse(
          (await hqq(['perplexity', SHIPPED, '--text', file, '--window', '32', '--json', ...more])).stdout,
        ) as { nll: number }
      ).nll;
    expect(await measure('--adapter', one)).not.toBeCloseTo(await measure(), 2);
    expectFailure(await hqq([...flags, '--adapter', join(work, 'nothing')]), 1, /nothing/);
    const nowhere = join(work, 'nothing');
    expectFailure(await hqq(['serve', nowhere, '--adapter', one]), 2, /--adapter to be a name and a folder/);
    expectFailure(
      await hqq(['serve', nowhere, '--adapter', 'a=x', '--adapter', 'a=y']),
      2,
      /--adapter "a" is given twice/,
    );
    expectFailure(await hqq(['serve', nowhere, '--adapter', 'nothing=x']), 2, /another name than the model, "nothing"/);
  });

  test('says what is wrong', async () => {
    expectFailure(await hqq(['generate', SHIPPED]), 2, /--prompt/);
    expectFailure(
      await hqq(['generate', SHIPPED, '--prompt', 'x', '--top-p', '2']),
      2,
      /--top-p to be a number in \(0, 1\]/,
    );
    expectFailure(
      await hqq(['generate', join(work, 'nothing'), '--prompt', 'x', '--top-p', '0.9']),
      2,
      /Expected a temperature with topP: .* Give one, such as temperature 1 \(--temperature 1\)/,
    );
    expectFailure(
      await hqq(['generate', SHIPPED, '--prompt', '']),
      2,
      /Expected --prompt to be a text that is not empty, got ""/,
    );
    const long = hqq(['generate', SHIPPED, '--prompt', 'word '.repeat(200)]);
    expectFailure(await long, 1, /maxContext \(--max-context\) sets the limit/);
    expectFailure(await hqq(['generate', join(work, 'nothing'), '--prompt', 'x']), 1, /nothing/);
  });
});

describe('hqq chat', () => {
  test('answers line by line, and says where a model has no template', async () => {
    const folder = join(work, 'talking');
    cpSync(SHIPPED, folder, { recursive: true });
    writeFileSync(
      join(folder, 'chat_template.jinja'),
      '{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}',
    );
    const shell = `printf 'Hello\\n\\nAnd you?\\n' | $HQQ chat '${folder}' --system 'Be brief.' --max-tokens 4`;
    const talked = await hqq([], { shell });
    const cut = 'hqq: the answer is cut after 4 tokens (--max-tokens)\n';
    expect(talked).toMatchObject({ status: 0, stderr: cut.repeat(2) });
    expect(talked.stdout.endsWith('\n')).toBe(true);
    expect(talked.stdout.trim()).not.toBe('');
    expectFailure(await hqq(['chat', SHIPPED], {}), 1, /has no chat template .* use generate/);

    // Three turns fill the context of 128 tokens, and no turn ends the conversation.
    const word = 'the '.repeat(40);
    const lines = [word, word, word, 'the '.repeat(200), 'And now?'].join('\\n');
    const flags = `--system 'Be brief.' --max-tokens 8`;
    const long = await hqq([], { shell: `printf '${lines}\\n' | $HQQ chat '${folder}' ${flags}` });
    expect(long.status).toBe(0);
    const said = long.stderr.split('\n').filter((line) => !line.includes('is cut after 8'));
    expect(said).toContain('hqq: the message is left out: it does not fit the context of 128 tokens (--max-context)');
    expect(said[0]).toBe('hqq: the context of 128 tokens (--max-context) is full: forgot the oldest 2 messages');
    expect(long.stdout.trimEnd().split('\n').length).toBeGreaterThanOrEqual(4);
    const quiet = await hqq([], { shell: `echo Hello | $HQQ chat '${folder}' --max-tokens 4 --quiet` });
    expect(quiet).toMatchObject({ status: 0, stderr: '' });
  });
});

describe('hqq serve', () => {
  test('says where it cannot listen, before it looks at the model', async () => {
    const taken = createServer();
    await once(taken.listen(0, '127.0.0.1'), 'listening');
    const { port } = taken.address() as AddressInfo;
    const nowhere = join(work, 'nothing');
    try {
      const busy = await hqq(['serve', nowhere, '--port', String(port)], {});
      const message = `Cannot listen at port ${port} of 127\\.0\\.0\\.1\\. It is in use\\. --port names another\\.`;
      expectFailure(busy, 1, new RegExp(message));
    } finally {
      taken.close();
    }
    const flags = ['--port', '0', '--host', '192.0.2.1'];
    expectFailure(await hqq(['serve', nowhere, ...flags]), 1, /192\.0\.2\.1\. This machine does not have the address/);
    const many = ['--max-tokens', String(2 ** 24 + 1)];
    expectFailure(await hqq(['serve', nowhere, ...many]), 2, /--max-tokens to be an integer/);
  });
});

describe('hqq perplexity', () => {
  test('measures a text', async () => {
    const file = join(work, 'text.txt');
    writeFileSync(file, 'It was the best of times, it was the worst of times. '.repeat(12));
    const { stdout, status } = await hqq(['perplexity', SHIPPED, '--text', file, '--window', '64'], {});
    expect(status).toBe(0);
    expect(stdout).toMatch(/^perplexity \d+\.\d{4} {2}\([\d.]+ nats a token, \d+ tokens in windows of 64\)\n$/);
    const { perplexity, nll } = JSON.parse(
      (await hqq(['perplexity', SHIPPED, '--text', file, '--json'])).stdout,
    ) as Record<string, number>;
    expect(perplexity).toBeCloseTo(Math.exp(nll!), 6);
  });

  test('says what is wrong with a window before it reads a text, or the weights', async () => {
    const flags = ['perplexity', SHIPPED, '--text', join(work, 'nothing.txt')];
    for (const window of ['0', 'many', '1.5']) {
      expectFailure(
        await hqq([...flags, '--window', window]),
        2,
        /Expected --window to be an integer from 1 to the model's context, /,
      );
    }
    const limit = (most: number, got: number) =>
      new RegExp(`(?:window|window \\(--window\\)) to be an integer in \\[1, ${most}\\], got ${got}\\.`);
    expectFailure(await hqq([...flags, '--window', '129']), 1, limit(128, 129)); // of another model it may be right
    const short = [...flags, '--max-context', '64'];
    expectFailure(await hqq([...short, '--window', '65']), 2, limit(64, 65));
    expectFailure(await hqq(short), 2, limit(64, 128)); // that which is taken by itself
    const unread = join(work, 'config-only');
    cpSync(SHIPPED, unread, { recursive: true });
    truncateSync(join(unread, 'model.safetensors'), 0);
    expectFailure(
      await hqq(['perplexity', unread, '--text', '-', '--window', '65', '--max-context', '64']),
      2,
      limit(64, 65),
    );
  });

  test('says when there is no text', async () => {
    const file = join(work, 'empty.txt');
    writeFileSync(file, '');
    expectFailure(
      await hqq(['perplexity', SHIPPED, '--text', file]),
      1,
      /Expected a text in .*empty\.txt, got nothing\./,
    );
    const shell = `$HQQ perplexity '${SHIPPED}' --text - </dev/null`;
    expectFailure(await hqq([], { shell }), 1, /Expected a text on standard input, got nothing\./);
  });

  test('points to standard input where a text is a named pipe', async () => {
    const shell = `$HQQ perplexity '${SHIPPED}' --text <(echo x)`;
    expectFailure(
      await hqq([], { shell }),
      1,
      /got a named pipe\. Pipe the text to standard input, with - in place of the file/,
    );
  });

  test('says when a text is too short', async () => {
    const file = join(work, 'short.txt');
    writeFileSync(file, 'Too short.');
    expectFailure(
      await hqq(['perplexity', SHIPPED, '--text', file]),
      1,
      /at least 129 tokens.* Give a longer text or a smaller window/,
    );
  });

  test.each([
    ['Latin-1', Buffer.from('Une soir\xe9e. '.repeat(100), 'latin1'), 8],
    ['cut off', Buffer.concat([Buffer.from('The sea. '.repeat(100)), Buffer.from([0xef, 0xbf])]), 901],
  ])('refuses a text that is no UTF-8: %s', async (_, bytes, at) => {
    const file = join(work, 'bytes.txt');
    writeFileSync(file, bytes);
    const result = await hqq(['perplexity', SHIPPED, '--text', file]);
    expectFailure(result, 1, new RegExp(`bytes\\.txt: expected text in UTF-8, which byte ${at} is not\\. Convert it`));
  });
});
