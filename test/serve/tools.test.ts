import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import OpenAI from 'openai';
import { afterEach, describe, expect, test } from 'vitest';
import { readChatTemplate } from '../../lib/runtime/text/chat-template.js';
import { ToolCallReader, type ToolForm, toolFormOf } from '../../lib/runtime/text/tool-calls.js';
import type { ServedModel } from '../../lib/serve/requests.js';
import { createServer } from '../../lib/serve/server.js';
import { scratchFolder } from '../support/scratch.js';

const closing: (() => Promise<void>)[] = [];
afterEach(() => Promise.all(closing.splice(0).map((close) => close())));

/** A client of a model that says `answer`, some characters a token. */
async function clientOf(form: ToolForm | undefined, answer: string, finish: 'stop' | 'length' = 'stop', size = 3) {
  const asked: { messages?: unknown } = {};
  const parts = answer.match(new RegExp(`[^]{1,${size}}`, 'g')) ?? [''];
  const model = {
    config: { vocabSize: 256 },
    maxContext: 1000,
    toolForm: async () => form,
    chatPrompt: async (messages: unknown) => {
      asked.messages = messages;
      return [1, 2, 3];
    },
    async *generate() {
      for (const [i, text] of parts.entries()) yield { id: 1, text, ...(i === parts.length - 1 && { finish }) };
    },
  } as unknown as ServedModel;
  const app = createServer(model, { name: 'm' });
  closing.push(() => app.close());
  const baseURL = `${await app.listen({ port: 0, host: '127.0.0.1' })}/v1`;
  return { asked, client: new OpenAI({ baseURL, apiKey: 'x', maxRetries: 0 }) };
}

const tools = ['weather', 'time'].map((name) => ({ type: 'function' as const, function: { name } }));
const question = { model: 'm', messages: [{ role: 'user' as const, content: 'x' }], tools };
type More = Partial<OpenAI.ChatCompletionCreateParams>;

/** Text, calls and end of an answer, whole and streamed, which are the same. */
async function answered(form: ToolForm | undefined, answer: string, more: More = {}, finish?: 'stop' | 'length') {
  const results = [];
  for (const size of [1, 3, 1000]) {
    const { client } = await clientOf(form, answer, finish, size);
    const { choices } = await client.chat.completions.create({ ...question, ...more, stream: false });
    const { message, finish_reason } = choices[0]!;
    const calls = (message.tool_calls ?? []).flatMap((call) => (call.type === 'function' ? [call] : []));
    results.push([message.content ?? '', calls.map(({ function: f }) => [f.name, f.arguments]), finish_reason]);
    const stream = await client.chat.completions.create({ ...question, ...more, stream: true });
    let [text, end] = ['', ''];
    const streamed: [string, string][] = [];
    const ids = new Set<string>();
    for await (const { choices } of stream) {
      const { delta, finish_reason } = choices[0]!;
      text += delta.content ?? '';
      end = finish_reason ?? end;
      for (const call of delta.tool_calls ?? []) {
        streamed[call.index] = [call.function!.name!, call.function!.arguments!];
        ids.add(call.id!);
      }
    }
    expect(ids.size).toBe(streamed.length);
    results.push([text, streamed, end]);
  }
  for (const result of results) expect(result).toEqual(results[0]);
  return results[0]!;
}

const call = (name: string, args: string) => `<tool_call>\n{"name": "${name}", "arguments": ${args}}\n</tool_call>`;

describe('calls of tools', () => {
  test('between marks are taken out of the text', async () => {
    const said = `Let me see.\n${call('weather', '{"city": "Bern"}')}\n${call('time', '{}')}`;
    const calls = [
      ['weather', '{"city":"Bern"}'],
      ['time', '{}'],
    ];
    expect(await answered('hermes', said)).toEqual(['Let me see.', calls, 'tool_calls']);
    expect(await answered('hermes', call('time', '"{\\"zone\\": 1}"'))).toEqual([
      '',
      [['time', '{"zone":1}']],
      'tool_calls',
    ]);
    expect(await answered('hermes', '<tool_call>{"name": "time"}')).toEqual(['', [['time', '{}']], 'tool_calls']);
  });

  test.each([
    'x < y, <tool and <tool_cal',
    `${call('unknown', '{}')} and on`,
    '<tool_call>{"name": "time", "arguments": [1]}</tool_call>',
    '<tool_call>{"name": "time", </tool_call> then',
    '<tool_call>time',
    'a \n b ',
    '',
  ])('that are none stay text: %j', async (said) => {
    expect(await answered('hermes', said)).toEqual([said, [], 'stop']);
  });

  test('that are the whole text are read at its end', async () => {
    const said = '\n{"name": "weather", "parameters": {"city": "Bern"}}';
    expect(await answered('llama3', said)).toEqual(['', [['weather', '{"city":"Bern"}']], 'tool_calls']);
    expect(await answered('llama3', said, {}, 'length')).toEqual(['', [['weather', '{"city":"Bern"}']], 'length']);
    for (const text of ['It is {"name": "time"}', '{"name": "none", "parameters": {}}', '{"name": "time"', ' '])
      expect(await answered('llama3', text)).toEqual([text, [], 'stop']);
  });

  test('stay text where no tools are given, none may be called or the form is unknown', async () => {
    const said = call('time', '{}');
    expect(await answered('hermes', said, { tools: [] })).toEqual([said, [], 'stop']);
    expect(await answered('hermes', said, { tool_choice: 'none' })).toEqual([said, [], 'stop']);
    expect(await answered(undefined, said)).toEqual([said, [], 'stop']);
  });

  test('of earlier turns reach the template with arguments that are objects', async () => {
    const { client, asked } = await clientOf('hermes', 'x');
    const one = (args: string) => ({ id: '1', type: 'function' as const, function: { name: 'time', arguments: args } });
    const messages = [{ role: 'assistant' as const, tool_calls: [one('{"zone":1}'), one('oops')] }];
    await client.chat.completions.create({ ...question, messages });
    expect(asked.messages).toMatchObject([
      { tool_calls: [{ function: { arguments: { zone: 1 } } }, { function: { arguments: 'oops' } }] },
    ]);
  });

  test('are told by the template', () => {
    const form = (template: string, withTools?: string) => toolFormOf({ template, withTools, specials: {} });
    expect(form('<tool_call>\n{"name": <name>, "arguments": <object>}\n</tool_call>')).toBe('hermes');
    expect(form('', '<tool_call>{"name", "arguments"}</tool_call>')).toBe('hermes');
    expect(form('<tool_call><function=a arguments></function></tool_call>')).toBeUndefined();
    expect(form('{"name": function name, "parameters": dictionary of argument name and its value}')).toBe('llama3');
    expect(form('{{ tools }}')).toBeUndefined();
  });

  test('are found however a text is cut', () => {
    for (const mark of ['</tool_call', '</tool_call>', '\\"</tool_call>']) allCuts(mark);
  });

  function allCuts(mark: string): void {
    const text = `a ${call('time', `{"x": "${mark}"}`)} b`;
    const told = [{ name: 'time', arguments: `{"x":"${mark}"}` }];
    for (let cut = 0; cut <= text.length; cut++) {
      const reader = new ToolCallReader('hermes', new Set(['time']));
      const parts = [reader.push(text.slice(0, cut)), reader.push(text.slice(cut)), reader.end()];
      expect(parts.flatMap(({ calls }) => calls)).toEqual(told);
      expect(parts.map(({ text }) => text).join('')).toBe('ab');
    }
  }

  test('after one that is no JSON are found', () => {
    const reader = new ToolCallReader('hermes', new Set(['time']));
    const parts = [reader.push(`<tool_call>{"na</tool_call> ${call('time', '{}')}`), reader.end()];
    expect(parts.map(({ text }) => text).join('')).toBe('<tool_call>{"na</tool_call>');
    expect(parts.flatMap(({ calls }) => calls)).toEqual([{ name: 'time', arguments: '{}' }]);
  });
});

test('white space before what is no call stays, in time that grows with it alone', () => {
  const reader = new ToolCallReader('hermes', new Set(['f']));
  const mark = ['Hello\n\n', '<tool_call>no JSON', '</tool_call> bye'].map((text) => reader.push(text).text);
  expect(mark.join('') + reader.end().text).toBe('Hello\n\n<tool_call>no JSON</tool_call> bye');
  const spaces = ' '.repeat(1_000_000);
  expect(new ToolCallReader('hermes', new Set(['f'])).push(`${spaces}x`).text).toBe(`${spaces}x`);
});

test('additional_chat_templates has the template for tools', async () => {
  const folder = scratchFolder('tools');
  mkdirSync(join(folder, 'additional_chat_templates'));
  writeFileSync(join(folder, 'chat_template.jinja'), 'plain');
  expect(await readChatTemplate(folder)).toEqual({ template: 'plain', withTools: undefined, specials: {} });
  writeFileSync(join(folder, 'additional_chat_templates', 'tool_use.jinja'), 'with tools');
  expect(await readChatTemplate(folder)).toEqual({ template: 'plain', withTools: 'with tools', specials: {} });
});
