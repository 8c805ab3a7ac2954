import { afterAll, beforeAll, expect, test } from 'vitest';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import type { LanguageModel } from '../../lib/runtime/model.js';
import { createServer } from '../../lib/serve/server.js';
import { adapterFolder, someAdapter } from '../support/adapters.js';
import { failure } from '../support/checkpoints.js';
import { SHIPPED } from '../support/language-models.js';

let model: LanguageModel;
let app: ReturnType<typeof createServer>;
let url: string;

beforeAll(async () => {
  const adapters = Object.fromEntries(
    ['sql', 'french'].map((name, i) => [name, adapterFolder(someAdapter(SHIPPED, i + 1, /[qv]_proj/))]),
  );
  model = await loadLanguageModel(SHIPPED, { adapters });
  app = createServer(model, { name: 'books' });
  url = await app.listen({ port: 0, host: '127.0.0.1' });
});

afterAll(async () => {
  await app.close();
  await model.close();
});

const complete = (called: string | undefined) =>
  fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: called, prompt: 'It was the', max_tokens: 8, temperature: 0 }),
  });

test('lists adapters as models whose parent is the base', async () => {
  const common = { object: 'model', created: 0, owned_by: 'hqq' };
  const sql = { id: 'sql', ...common, root: 'sql', parent: 'books' };
  const french = { id: 'french', ...common, root: 'french', parent: 'books' };
  const base = { id: 'books', ...common };
  expect(await (await fetch(`${url}/v1/models`)).json()).toEqual({ object: 'list', data: [base, sql, french] });
  expect(await (await fetch(`${url}/v1/models/sql`)).json()).toEqual(sql);
});

test('each request has the adapter that it calls the model by, with others and alone', async () => {
  const called = [undefined, 'sql', 'books', 'french', 'sql'] as const;
  const answers = await Promise.all(
    called.map(async (name) => (await (await complete(name)).json()) as { model: string; choices: { text: string }[] }),
  );
  expect(answers.map((answer) => answer.model)).toEqual(['books', 'sql', 'books', 'french', 'sql']);
  for (const [i, answer] of answers.entries()) {
    const adapter = called[i] === 'books' ? undefined : called[i];
    let text = '';
    for await (const token of model.generate('It was the', { maxTokens: 8, adapter })) text += token.text;
    expect(answer.choices[0]!.text).toBe(text);
  }
  expect(new Set(answers.map(({ choices }) => choices[0]!.text)).size).toBe(3);
});

test('says which there are', async () => {
  const answer = await complete('latin');
  expect(answer.status).toBe(404);
  const message = 'There is no model "latin", only books, sql, french.';
  expect(await answer.json()).toMatchObject({ error: { message, code: 'model_not_found', param: 'model' } });
  expect((await fetch(`${url}/v1/models/latin`)).status).toBe(404);
  expect(await failure(() => createServer(model, { name: 'sql' }))).toMatchObject({ code: 'ERR_INVALID_OPTION' });
});
