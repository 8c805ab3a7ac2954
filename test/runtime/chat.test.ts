import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { Prefixes } from '../../lib/runtime/batch/prefixes.js';
import { KvCache } from '../../lib/runtime/blocks/cache.js';
import type { LanguageModelConfig } from '../../lib/runtime/config/model-config.js';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import type { LanguageModel } from '../../lib/runtime/model.js';
import type { ChatMessage } from '../../lib/runtime/text/chat-template.js';
import type { GenerateOptions } from '../../lib/runtime/text/generate-options.js';
import { TemplateThreads } from '../../lib/runtime/text/template-threads.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

const work = scratchFolder('chat');
const TEMPLATE =
  "{{ bos_token }}{% if tools %}[{{ tools | length }} tools]{% endif %}{% for m in messages %}{% if m.role == 'robot' %}" +
  "{{ raise_exception('No robots.') }}{% endif %}{{ m.role }}: {{ m.content }}\n{% endfor %}" +
  '{% if add_generation_prompt %}assistant:{% endif %}';

/** The shipped model with a chat template, in one of the places where these are. */
function talking(name: string, place: 'jinja' | 'config' | 'list'): string {
  const folder = join(work, name);
  cpSync(SHIPPED, folder, { recursive: true });
  const file = join(folder, 'tokenizer_config.json');
  const config = JSON.parse(readFileSync(file, 'utf8')) as object;
  if (place === 'jinja') writeFileSync(join(folder, 'chat_template.jinja'), TEMPLATE);
  const chat_template = { jinja: undefined, config: TEMPLATE, list: [{ name: 'default', template: TEMPLATE }] }[place];
  writeFileSync(file, JSON.stringify({ ...config, bos_token: { content: '<s>' }, chat_template }));
  return folder;
}

async function collect(tokens: AsyncIterable<{ id: number; text: string; prompt?: object }>) {
  const all = [];
  for await (const token of tokens) all.push(token);
  return { ids: all.map(({ id }) => id), text: all.map(({ text }) => text).join(''), prompt: all[0]?.prompt };
}

const say = (content: string): ChatMessage => ({ role: 'user', content });

describe('chat', () => {
  test.each(['jinja', 'config', 'list'] as const)('goes on with what the template of a %s makes', async (place) => {
    await using model = await loadLanguageModel(talking(`in-${place}`, place));
    const tokenizer = await model.tokenizer();
    const ids = await model.chatPrompt([say('Hello')], { tools: [{ type: 'function' }] });
    expect(await tokenizer.decode(ids)).toContain('[1 tools]user: Hello\nassistant:');
    const prompt = await model.chatPrompt([say('Hello')]);
    const [answer, same] = [
      await collect(model.chat([say('Hello')], { maxTokens: 5 })),
      await collect(model.generate(prompt, { maxTokens: 5 })),
    ];
    expect(answer.ids).toEqual(same.ids);
  });

  test('refuses what is no conversation, and what the template refuses', async () => {
    await using model = await loadLanguageModel(talking('refusing', 'jinja'));
    for (const messages of [[], 'Hello', [null], [{ role: 'user', content: 3 }], [{ content: 'Hello' }]])
      expect(() => model.chat(messages as never)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }));
    expect(() => model.chat([say('x')], { tools: 3 as never })).toThrow(
      'Expected tools to be a list of objects, got 3.',
    );
    expect(() => model.chat([say('x')], { maxToken: 3 } as never)).toThrow('Did you mean "maxTokens"?');
    await expect(model.chatPrompt([{ role: 'robot', content: '' }])).rejects.toThrow(
      'refuses the messages: No robots.',
    );
    await using base = await loadLanguageModel(SHIPPED);
    await expect(base.chatPrompt([say('x')])).rejects.toMatchObject({
      code: 'ERR_CHECKPOINT_CONTENT',
      message: expect.stringContaining('has no chat template') as string,
    });
  });

  test('reads each token of a conversation once', async () => {
    await using model = await loadLanguageModel(talking('turns', 'jinja'), { maxContext: 1024 });
    await using cold = await loadLanguageModel(join(work, 'turns'), { maxContext: 1024, prefixBytes: 0 });
    const messages: ChatMessage[] = [{ role: 'system', content: 'Answer as a sailor of the old days would.' }];
    let read: number[] = [];
    for (let turn = 0; turn < 10; turn++) {
      messages.push(say(`What of the ${turn} whales?`));
      const [warm, fresh] = [
        await collect(model.chat(messages, { maxTokens: 8 })),
        await collect(cold.chat(messages, { maxTokens: 8 })),
      ];
      expect(warm.ids, `turn ${turn}`).toEqual(fresh.ids);
      const ids = await model.chatPrompt(messages);
      const differs = ids.findIndex((id, i) => id !== read[i]);
      expect(warm.prompt, `turn ${turn}`).toEqual({ tokens: ids.length, reused: differs });
      // All but the end of the last answer, of which a template makes other tokens than those that the model wrote.
      if (turn > 0) expect(differs, `turn ${turn}`).toBeGreaterThanOrEqual(read.length - warm.ids.length);
      read = [...ids, ...warm.ids.slice(0, -1)];
      messages.push({ role: 'assistant', content: warm.text });
    }
  });
});

describe('a template that does not end', () => {
  const ENDLESS =
    '{% if spin %}{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{% endif %}hello';
  const endless = (name: string): string => {
    const folder = talking(name, 'jinja');
    writeFileSync(join(folder, 'chat_template.jinja'), ENDLESS);
    return folder;
  };

  test('holds up neither other texts nor the end of the model', async () => {
    const model = await loadLanguageModel(endless('endless'));
    const controller = new AbortController();
    const options = { templateOptions: { spin: true }, signal: controller.signal };
    const spinning = [model.chatPrompt([say('x')], options), collect(model.chat([say('x')], options))];
    const waiting = model.chatPrompt([say('x')]);
    expect((await collect(model.generate('The sea', { maxTokens: 3 }))).ids).toHaveLength(3);
    const ended = Promise.allSettled(spinning);
    controller.abort(new Error('enough'));
    for (const result of await ended) expect(result).toMatchObject({ reason: { message: 'enough' } });
    expect(await (await model.tokenizer()).decode(await waiting)).toBe('hello');
    await model.close();
  });

  test('is an error after a time, and is ended with its tokenizer', async () => {
    const library = createRequire(import.meta.url).resolve('@huggingface/jinja');
    const thread = new TemplateThreads(library, 50);
    const rendering = { template: ENDLESS, context: { spin: true } };
    await expect(thread.render(rendering)).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      message: expect.stringContaining('to be done within 0.05 s') as string,
    });
    const patient = new TemplateThreads(library);
    const under = expect(patient.render(rendering)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    await Promise.all([under, patient.close(), thread.close()]);
    await expect(patient.render(rendering)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });
});

test('renderings that take long keep no others waiting', async () => {
  const threads = new TemplateThreads(createRequire(import.meta.url).resolve('@huggingface/jinja'), 60_000);
  const spin = '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}';
  const fates: string[] = [];
  const long = [1, 2].map(() =>
    threads.render({ template: spin, context: {} }).catch(() => {
      fates.push('ended');
    }),
  );
  const others = ['a', 'b', 'c'].map((x) => threads.render({ template: 'hello {{ x }}', context: { x } }));
  expect(await Promise.all(others)).toEqual(['hello a', 'hello b', 'hello c']);
  expect(fates).toEqual([]);
  await threads.close();
  await Promise.all(long);
  expect(fates).toEqual(['ended', 'ended']);
});

test('what a template makes is bounded before it is tokenized', async () => {
  await using model = await loadLanguageModel(talking('bounded', 'jinja'));
  expect(await model.chatPrompt([say('x')], { maxCharacters: 30 })).not.toHaveLength(0);
  await expect(model.chatPrompt([say('x'.repeat(30))], { maxCharacters: 30 })).rejects.toMatchObject({
    code: 'ERR_INVALID_ARGUMENT',
    message: expect.stringContaining('at most 30 characters') as string,
  });
  await expect(model.chatPrompt([say('x')], { maxCharacters: 0 })).rejects.toMatchObject({
    code: 'ERR_INVALID_OPTION',
  });
});

describe('templates by name', () => {
  const named = (name: string, list: object[]): string => {
    const folder = talking(name, 'config');
    const file = join(folder, 'tokenizer_config.json');
    const config = JSON.parse(readFileSync(file, 'utf8')) as object;
    writeFileSync(file, JSON.stringify({ ...config, chat_template: list }));
    return folder;
  };
  const rendered = async (model: LanguageModel, tools?: object[]) =>
    (await model.tokenizer()).decode(await model.chatPrompt([say('Hello')], { tools }));

  test('are chosen by whether there are tools', async () => {
    const list = ['rag', 'tool_use', 'default'].map((name) => ({ name, template: `as ${name}` }));
    await using model = await loadLanguageModel(named('by-name', list));
    expect(await rendered(model)).toBe('as default');
    expect(await rendered(model, [])).toBe('as default');
    expect(await rendered(model, [{ type: 'function' }])).toBe('as tool_use');
  });

  test('are taken where there is only one, whatever its name', async () => {
    await using model = await loadLanguageModel(named('only-one', [{ name: 'rag', template: 'as rag' }]));
    expect(await rendered(model, [{ type: 'function' }])).toBe('as rag');
  });
});

describe('what a tokenizer makes of a prompt', () => {
  /** The shipped model, whose tokenizer puts nothing before a text and has a token that the model lacks. */
  const strange = (): string => {
    const folder = talking('strange', 'config');
    const file = join(folder, 'tokenizer.json');
    const tokenizer = JSON.parse(readFileSync(file, 'utf8')) as { added_tokens: object[] };
    const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
    tokenizer.added_tokens.push({ id: 5000, content: '<|more|>', ...flags });
    writeFileSync(file, JSON.stringify({ ...tokenizer, post_processor: null }));
    return folder;
  };

  test('is refused where it is nothing, or nothing that the model knows, and other texts go on', async () => {
    await using model = await loadLanguageModel(strange());
    const write = async (prompt: string) => (await collect(model.generate(prompt, { maxTokens: 5 }))).text;
    const alone = await write('The sea was calm');
    const [sea, none, unknown] = await Promise.allSettled(['The sea was calm', '', '<|more|>The sea'].map(write));
    expect(sea).toMatchObject({ value: alone });
    const code = 'ERR_INVALID_ARGUMENT';
    const saying = (text: string) => expect.stringContaining(text) as string;
    expect(none).toMatchObject({ reason: { code, message: saying('at least one token, got one of none') } });
    const message = saying('to be ids in [0, 2047], got 5000 of the tokenizer');
    expect(unknown).toMatchObject({ reason: { code, message } });
    await expect(collect(model.chat([say('<|more|>')]))).rejects.toMatchObject({ code, message });
  });
});

describe('a cache of the caller', () => {
  const ids = Array.from({ length: 40 }, (_, i) => 5 + i * 3);
  const write = async (model: LanguageModel, prompt: readonly number[], options: GenerateOptions) =>
    (await collect(model.generate(prompt, { maxTokens: 6, ...options }))).ids;

  test('is gone on from, and holds all but the last token afterwards', async () => {
    await using model = await loadLanguageModel(SHIPPED, { maxContext: 128 });
    const cache = model.createCache();
    const first = await write(model, ids, { cache });
    expect(first).toEqual(await write(model, ids, {}));
    expect(cache.length).toBe(45);
    const next = [first.at(-1)!, 9, 8, 7];
    expect(await write(model, next, { cache })).toEqual(
      await write(model, [...ids, ...first.slice(0, -1), ...next], {}),
    );
    for await (const { id } of model.generate([3], { cache })) if (id >= 0) break; // what was read ahead is forgotten
    expect(cache.length).toBe(45 + 4 + 5 + 1);
    await expect(write(model, new Array<number>(80).fill(1), { cache })).rejects.toThrow(
      'got 80 after the 55 of the cache',
    );
    expect(() => model.generate(ids, { cache: {} as never })).toThrow('from createCache()');
    await expect(write(model, [3], { cache, repetitionPenalty: 1.1 })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('no repetitionPenalty with a cache that holds 55 tokens') as string,
    });
    expect(await write(model, ids, { cache: model.createCache(), repetitionPenalty: 1.1 })).toHaveLength(6);
  });

  test('ends a text where it is full, though the model has room for more', async () => {
    await using small = await loadLanguageModel(SHIPPED, { maxContext: 44 });
    await using model = await loadLanguageModel(SHIPPED, { maxContext: 128 });
    const cache = small.createCache();
    const all = [];
    for await (const token of model.generate(ids, { cache })) all.push(token);
    expect(all.at(-1)).toMatchObject({ finish: 'length' });
    expect([all.length, cache.length]).toEqual([5, 44]);
    await expect(write(model, [3], { cache })).rejects.toThrow('the context of 44, got 1 after the 44 of the cache');
  });
});

describe('what earlier texts began with', () => {
  const config = { layers: 2, kvHeads: 2, headDim: 4, vocabSize: 8, ropes: [] as unknown } as LanguageModelConfig;
  const make = () => new KvCache(config, 4096);
  /** Reads the rest of a text, as its numbers. */
  const fill = (cache: KvCache, ids: readonly number[]) =>
    cache.extend(ids.length - cache.length, async (start) => {
      for (let i = start; i < ids.length; i++) for (const layer of [0, 1]) set(cache, layer, i, ids[i]!);
    });
  /** The segment that a position lies in, and where. */
  const place = (cache: KvCache, layer: number, position: number) => {
    let at = position;
    for (const { capacity, values } of cache.layer(layer).segments) {
      if (at < capacity) return [values, at * config.headDim] as const;
      at -= capacity;
    }
    throw new Error(`no position ${position}`);
  };
  const set = (cache: KvCache, layer: number, position: number, value: number) => {
    const [values, at] = place(cache, layer, position);
    values[at] = value;
  };
  const held = (cache: KvCache, count: number) =>
    Array.from({ length: count }, (_, i) => {
      const [values, at] = place(cache, 1, i);
      return values[at]!;
    });
  const text = (length: number, from = 0) => Array.from({ length }, (_, i) => from + i);

  test('is taken, or copied where another goes on with it', async () => {
    const prefixes = new Prefixes(1 << 30, make);
    const ids = text(300);
    const first = await prefixes.begin(ids);
    expect(first.reused).toBe(0);
    await fill(first.cache, ids);
    const live = await prefixes.begin([...text(100), 7]); // while it is written
    expect([live.reused, live.cache === first.cache]).toEqual([100, false]);
    expect(held(live.cache, 100)).toEqual(text(100));
    await first.end(ids);
    const next = await prefixes.begin([...ids, 5, 6]);
    expect([next.reused, next.cache === first.cache]).toEqual([300, true]);
    await next.end(ids);
    const other = await prefixes.begin([...text(20), ...text(20, 1000)]);
    expect([other.reused, other.cache === first.cache]).toEqual([20, false]);
    expect(held(other.cache, 20)).toEqual(text(20));
    expect((await prefixes.begin([...text(15), 1])).reused).toBe(0); // not worth it
    expect((await prefixes.begin(ids)).reused).toBe(299); // the last one is read for its logits
  });

  test('takes no more room than it needs where a long prompt is given up', async () => {
    const one = make();
    await fill(one, text(10));
    const prefixes = new Prefixes(2 * one.bytes, make);
    for (const from of [0, 100]) {
      const begun = await prefixes.begin(text(40, from));
      await fill(begun.cache, text(40, from));
      await begun.end(text(40, from));
    }
    const long = await prefixes.begin([...text(40), ...text(3000, 500)]);
    const gaveUp = long.cache.extend(3000, () => Promise.reject(new Error('gave up')));
    await expect(gaveUp).rejects.toThrow('gave up');
    await long.end([...text(40), ...text(3000, 500)]);
    const begun = [await prefixes.begin([...text(40), 7]), await prefixes.begin(text(40, 100))];
    expect(begun.map(({ reused }) => reused)).toEqual([40, 39]);
    expect(held(begun[0]!.cache, 40)).toEqual(text(40));
  });

  test('is not driven out by a text that is too large to be kept', async () => {
    const one = make();
    await fill(one, text(10));
    const prefixes = new Prefixes(2 * one.bytes, make);
    for (const ids of [text(40), text(2000, 900)]) {
      const begun = await prefixes.begin(ids);
      await fill(begun.cache, ids);
      await begun.end(ids);
    }
    expect((await prefixes.begin(text(40))).reused).toBe(39);
  });

  test('leaves its memory to the next text when it goes, unless somebody copies of it', async () => {
    const one = make();
    await fill(one, text(40));
    const prefixes = new Prefixes(one.bytes, make);
    const begun = [];
    for (const from of [0, 100]) {
      const own = await prefixes.begin(text(40, from));
      await fill(own.cache, text(40, from));
      await own.end(text(40, from)); // the second one drives the first out
      begun.push(own);
    }
    const [first, second] = begun.map(({ cache }) => cache);
    const next = await prefixes.begin(text(40, 200));
    expect([next.cache === first, next.cache.length, next.reused]).toEqual([true, 0, 0]);
    await fill(next.cache, text(40, 200));
    const copying = prefixes.begin([...text(16, 100), 7]);
    await next.end(text(40, 200)); // now the second one goes, which is copied
    expect((await prefixes.begin(text(40, 300))).cache === second).toBe(false);
    expect(held((await copying).cache, 16)).toEqual(text(16, 100));
  });

  test('stays as it is while another text copies of it, though its own text has ended', async () => {
    const prefixes = new Prefixes(1 << 30, make);
    const first = await prefixes.begin(text(40));
    await fill(first.cache, text(40));
    for (const start = performance.now(); performance.now() - start < 3; ); // the turn is used up: copying waits for the next
    const copying = prefixes.begin([...text(36), 999, 998]);
    await first.end(text(40));
    const ids = [...text(25), ...text(15, 500)];
    const third = await prefixes.begin(ids); // would go on with the cache itself
    await fill(third.cache, ids);
    const second = await copying;
    expect([second.reused, third.reused, third.cache === first.cache]).toEqual([36, 25, false]);
    expect([held(second.cache, 36), held(third.cache, 40)]).toEqual([text(36), ids]);
  });

  test('is bounded: the least recently used goes', async () => {
    const one = make();
    await fill(one, text(10));
    const prefixes = new Prefixes(2 * one.bytes, make);
    for (const from of [0, 100, 200]) {
      const first = await prefixes.begin(text(40, from));
      await fill(first.cache, text(40, from));
      await first.end(text(40, from));
    }
    const begun = [];
    for (const from of [0, 100, 200]) begun.push(await prefixes.begin(text(40, from)));
    expect(begun.map(({ reused }) => reused)).toEqual([0, 39, 39]);
    const short = await prefixes.begin(text(10, 300));
    await fill(short.cache, text(10, 300));
    await short.end(text(10, 300)); // too short to be begun with: nothing goes for it
    expect((await prefixes.begin(text(40, 100))).reused).toBe(39);
    expect(begun[1]!.reused).toBe(39); // which is alive
    const none = new Prefixes(0, make);
    const last = await none.begin(text(40));
    await fill(last.cache, text(40));
    await last.end(text(40));
    expect((await none.begin(text(40))).reused).toBe(0);
  });
});
