// Vercel's AI SDK and LangChain with `hqq serve`, on the model that ships with the repository.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { HumanMessage, SystemMessage } from '@langchain/core/messages';
import { ChatOpenAI } from '@langchain/openai';
import { generateObject, generateText, jsonSchema, streamObject, streamText } from 'ai';

const root = fileURLToPath(new URL('../..', import.meta.url));
const work = mkdtempSync(join(tmpdir(), 'hqq-openai-'));
let server;
let url;

before(async () => {
  cpSync(join(root, 'examples/models/llama-2.3m-books'), join(work, 'books'), { recursive: true });
  const template = '{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:';
  writeFileSync(join(work, 'books', 'chat_template.jinja'), template);
  writeFileSync(join(work, 'keys'), 'secret\n');
  const args = ['serve', join(work, 'books'), '--port', '0', '--api-key-file', join(work, 'keys')];
  server = spawn(process.execPath, [join(root, 'dist/cli.mjs'), ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  url = await new Promise((resolve, reject) => {
    server.stdout.on('data', (text) => {
      const found = /on (http:\S+)/.exec((output += text))?.[1];
      if (found) resolve(found);
    });
    server.once('exit', () => reject(new Error(`hqq serve has ended. ${output}`)));
  });
});

after(() => {
  server.kill('SIGTERM');
  rmSync(work, { recursive: true });
});

const asked = { system: 'Be brief.', prompt: 'And the Lord said', maxOutputTokens: 8, temperature: 0, maxRetries: 0 };
const books = () =>
  createOpenAICompatible({
    ...{ name: 'hqq', baseURL: `${url}/v1`, apiKey: 'secret' },
    ...{ includeUsage: true, supportsStructuredOutputs: true },
  })('books');

test("the AI SDK's generateText and streamText give the same text, and its usage", async () => {
  const { text, usage, finishReason } = await generateText({ model: books(), ...asked });
  assert.equal(finishReason, 'length');
  assert.equal(usage.outputTokens, 8);
  const stream = streamText({ model: books(), ...asked });
  let streamed = '';
  for await (const part of stream.textStream) streamed += part;
  assert.equal(streamed, text);
  assert.equal((await stream.usage).outputTokens, 8);
});

test("the AI SDK's generateObject and streamObject have objects of their schema", async () => {
  const schema = jsonSchema({
    type: 'object',
    properties: { kind: { type: 'string', enum: ['sea', 'sky'] }, depth: { type: 'integer', minimum: 1, maximum: 9 } },
    required: ['kind', 'depth'],
    additionalProperties: false,
  });
  const more = { model: books(), ...asked, maxOutputTokens: 60, schema };
  const { object, finishReason } = await generateObject(more);
  assert.equal(finishReason, 'stop');
  assert.ok(['sea', 'sky'].includes(object.kind) && Number.isInteger(object.depth));
  const streamed = streamObject(more);
  let last;
  for await (const part of streamed.partialObjectStream) last = part;
  assert.deepEqual([last, await streamed.object], [object, object]);
});

test('the AI SDK leaves a stream', async () => {
  const controller = new AbortController();
  const stream = streamText({ model: books(), ...asked, maxOutputTokens: 90, abortSignal: controller.signal });
  let parts = 0;
  for await (const _ of stream.textStream) if (++parts === 2) controller.abort();
  assert.ok(parts < 60);
});

test('the AI SDK is told what is wrong', async () => {
  const other = createOpenAICompatible({ name: 'hqq', baseURL: `${url}/v1`, apiKey: 'guessed' })('books');
  await assert.rejects(generateText({ model: other, ...asked }), (error) => error.statusCode === 401);
});

test("LangChain's ChatOpenAI talks, whole and streamed", async () => {
  const configuration = { baseURL: `${url}/v1`, apiKey: 'secret' };
  const chat = new ChatOpenAI({
    model: 'books',
    apiKey: 'secret',
    configuration,
    temperature: 0,
    maxTokens: 8,
    maxRetries: 0,
  });
  const messages = [new SystemMessage('Be brief.'), new HumanMessage('And the Lord said')];
  const { content, usage_metadata: usage } = await chat.invoke(messages);
  assert.equal(usage.output_tokens, 8);
  let streamed = '';
  for await (const chunk of await chat.stream(messages)) streamed += chunk.content;
  assert.equal(streamed, content);
});
