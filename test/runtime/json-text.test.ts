import { describe, expect, test } from 'vitest';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import { formatStart, JsonText } from '../../lib/runtime/text/json/json-text.js';
import { advance, isEnd } from '../../lib/runtime/text/json/states.js';
import { randomNumbers } from '../../lib/runtime/text/sampling.js';
import { items, leads, whole } from '../support/json-text.js';
import { SHIPPED } from '../support/language-models.js';

describe('JSON by the character', () => {
  test.each([
    '{}',
    ' {"a" : [1, -0.5e+3, true, false, null, "x\\u00e9\\n\\"", {}, []]}',
    '{"a":{"b":[[0],{"c":1e9}]},"d":""}',
    '{"\u00e9\u{1F433}":10.25}',
    '\n{\n  "a": [\r\n        1,\n        2\n    ],\n    "b": {\n    }\n}',
  ])('takes %s', (text) => {
    expect(whole(text)).toBe(true);
    expect(() => JSON.parse(text) as unknown).not.toThrow();
    for (let end = 1; end < text.trimEnd().length; end++) {
      expect(leads(text.slice(0, end)), text.slice(0, end)).toBeDefined();
      expect(whole(text.slice(0, end))).toBe(false);
    }
  });

  test.each([
    '[1]',
    '"a"',
    '{a',
    '{"a"}',
    '{,',
    '{"a":1,}',
    '{"a":01',
    '{"a":1.}',
    '{"a":-}',
    '{"a":+1',
    '{"a":.5',
    '{"a":1e}',
    '{"a":tru}',
    '{"a":"\\x',
    '{"a":"\\u12g',
    '{"a":"\n',
    '{"a":[1}',
    '{"a":[1,]',
    '{"a":1]',
    '{} ',
    '{}{',
    '{  ',
    '{\n     ',
    '{\n\n',
    '\n ',
    '{"a"\n',
    '{"a":\n',
    '{"a":1\n,',
    `{"a":${'['.repeat(64)}`,
  ])('refuses %j', (text) => {
    expect(leads(text)).toBeUndefined();
  });

  test('agrees with JSON.parse on random changes of a text', () => {
    const random = randomNumbers(7);
    const parts = ['{', '}', '[', ']', '"', ':', ',', '0', '1', '-', '.', 'e', 'true', 'null', 'a', '\\', 'u0041', ' '];
    const base = '{"a":[1,{"b":-0.5e1}],"c":"d\\u0041","e":true}';
    for (let i = 0; i < 5000; i++) {
      let text = base;
      for (let changes = 1 + Math.floor(random() * 2); changes > 0; changes--) {
        const at = Math.floor(random() * (text.length + 1));
        const more = random() < 0.7 ? parts[Math.floor(random() * parts.length)]! : '';
        text = text.slice(0, at) + more + text.slice(at + Math.floor(random() * 3));
      }
      if (text.includes('  ')) continue; // one space within a line is enough
      let valid = false;
      try {
        const value: unknown = JSON.parse(text);
        valid = typeof value === 'object' && value !== null && !Array.isArray(value) && !text.endsWith(' ');
      } catch {}
      expect(whole(text), text).toBe(valid);
    }
  });
});

test('a model that is kept to JSON writes an object, or the beginning of one', async () => {
  await using model = await loadLanguageModel(SHIPPED, { maxContext: 512 });
  for (const seed of [1, 2]) {
    let [text, finish] = ['', ''];
    for await (const token of model.generate('The sea', { format: 'json', temperature: 1, seed, maxTokens: 40 })) {
      text += token.text;
      finish = token.finish ?? '';
    }
    const state = leads(text);
    expect(state, text).toBeDefined();
    expect(finish === 'stop').toBe(isEnd(state ?? []));
  }
  expect(() => model.generate('x', { format: 'xml' as 'json' })).toThrow(
    `Expected format to be 'json' or { schema }, got "xml".`,
  );
});

describe('JSON of a schema', () => {
  const person = {
    type: 'object',
    properties: {
      name: { type: 'string', minLength: 1, maxLength: 5 },
      age: { type: 'integer', minimum: 18, maximum: 120 },
      tags: { type: 'array', items: { enum: ['red', 'r\u00e9d', 'blue'] }, maxItems: 2 },
      next: { anyOf: [{ $ref: '#' }, { type: 'null' }] },
    },
    required: ['name', 'age'],
    additionalProperties: false,
  };
  const start = formatStart({ schema: person });

  test.each([
    '{"name":"Ann","age":18}',
    '{ "age" : 120, "tags": ["red", "r\u00e9d"], "name":"a\\n\\u0041"}',
    '{"name":"Ann","age":99,"next":{"name":"B","age":20,"next":null}}',
    '{"name":"Ann","age":99,"tags":["r\\u00e9d"]}',
  ])('takes %s', (text) => {
    expect(whole(text, start)).toBe(true);
    expect(() => JSON.parse(text) as unknown).not.toThrow();
  });

  test.each([
    '{}',
    '{"name":"Ann"}',
    '{"name":""',
    '{"name":"Annabe',
    '{"name":"Ann","age":17}',
    '{"name":"Ann","age":121',
    '{"name":"Ann","age":-',
    '{"name":"Ann","age":20.',
    '{"name":"Ann","age":2e',
    '{"name":"Ann","age":0',
    '{"name":"Ann","name"',
    '{"nam"',
    '{"name":"Ann","age":20,"tags":["green',
    '{"name":"Ann","age":20,"tags":["red","red",',
    '{"name":"Ann","age":20,"next":{}',
    '{"name":"Ann","age":20,"next":1',
    '[',
  ])('refuses %s', (text) => {
    expect(leads(text, start)).toBeUndefined();
  });

  const of = (schema: object) =>
    formatStart({
      schema: { type: 'object', properties: { a: schema }, required: ['a'], additionalProperties: false },
    });

  test.each<[object, string[], string[]]>([
    [{ type: 'number', minimum: 2, maximum: 2.5 }, ['2', '2.0', '2.49', '2.5'], ['1', '2.6', '2.51', '3', '20', '-']],
    [{ type: 'number', exclusiveMinimum: 0, maximum: 1 }, ['1', '0.5', '0.000001', '1.0'], ['0', '1.1', '2', '-1']],
    [{ type: 'number', maximum: -5 }, ['-5', '-5.5', '-50'], ['-4', '5', '-0']],
    [{ type: 'integer' }, ['0', '-7', '12345678901234567890'], ['1.5', '01', '1e3', '123456789012345678901']],
    [{ type: ['string', 'null'] }, ['"x"', 'null'], ['1', 'true']],
    [{ const: { b: [1] } }, ['{"b":[1]}'], ['{"b": ', '{"b":[2']],
    [
      { type: 'array', minItems: 1, prefixItems: [{ type: 'boolean' }], items: false },
      ['[true]', '[ false ]'],
      ['[]', '[true,', '[1'],
    ],
    [{ type: 'object', additionalProperties: { type: 'integer' } }, ['{}', '{"x":1,"y":2}'], ['{"x":"']],
    [
      { type: 'object', properties: { k: { type: 'null' } } },
      ['{"k":null}', '{"l":3}', '{"kk":1}'],
      ['{"k":1', '{"\\u006b":'],
    ],
    [{}, ['1', '"x"', '{"a":[]}'], ['tru,']],
    [{ anyOf: [{ type: 'integer' }, { type: 'array', items: { type: 'integer' } }] }, ['5', '[5]'], ['"']],
  ])('%j', (schema, good, bad) => {
    for (const text of good) expect(whole(`{"a":${text}}`, of(schema)), text).toBe(true);
    for (const text of bad) expect(leads(`{"a":${text}}`, of(schema)), text).toBeUndefined();
  });

  const endless = { type: 'array', minItems: 1, items: { $ref: '#/$defs/a' } };
  const lists = (depth: number): object =>
    depth === 0 ? { type: 'null' } : { type: 'array', minItems: 1, items: lists(depth - 1) };

  test('takes schemas that mean themselves where there are values of them, and numbers within close bounds', () => {
    const tree = {
      type: 'object',
      properties: { next: { anyOf: [{ type: 'null' }, { $ref: '#' }] } },
      required: ['next'],
    };
    expect(whole('{"next":{"next":null}}', formatStart({ schema: tree }))).toBe(true);
    const close = { type: 'array', items: { type: 'number', minimum: 1.23456, maximum: 1.23457 } };
    expect(whole('[1.234565]', formatStart({ schema: close }))).toBe(true);
    const deep = `${'['.repeat(64)}null${']'.repeat(64)}`;
    expect(whole(deep, formatStart({ schema: lists(64) }))).toBe(true);
  });

  test.each<[unknown, string]>([
    [{ type: 'string' }, 'of an object or a list'],
    [{ type: 'object', properties: { a: { type: 'string', pattern: '^a' } } }, 'schema.a.pattern'],
    [{ type: 'object', properties: { a: { type: 'text' } } }, 'schema.a.type to be one of object, array'],
    [{ type: 'object', properties: { a: { not: {} } } }, 'schema.a.not'],
    [{ type: 'object', properties: { a: { enum: [] } } }, 'schema.a.enum'],
    [{ type: 'object', required: ['b'], additionalProperties: false }, 'to have "b", which is required'],
    [{ $ref: '#' }, 'does not mean itself'],
    [{ $ref: '#/$defs/a' }, '"#/$defs/a"'],
    [{ $ref: 'https://example.com' }, 'within this one'],
    [{ $ref: '#/%E0%A4%A' }, 'got "#/%E0%A4%A"'],
    [{ $ref: '#/%' }, 'within this one'],
    [{ type: 'object', properties: { a: { type: 'integer', minimum: 3, maximum: 2 } } }, 'minimum 3 and maximum 2'],
    [{ type: 'object', properties: { a: { type: 'array', minItems: 2, maxItems: 1 } } }, 'minItems'],
    [{ type: 'object', properties: { a: { allOf: [{}, {}] } } }, 'allOf of several'],
    [{ type: 'object', properties: { a: 3 } }, 'schema.a to be a JSON schema, got 3'],
    [{ type: 'array', items: { anyOf: Array.from({ length: 257 }, () => ({ type: 'object' })) } }, 'at most 256'],
    [7, 'schema to be a JSON schema, got 7'],
    [{ type: 'array', items: { type: 'integer', minimum: 0.2, maximum: 0.8 } }, 'to allow some numbers'],
    [
      { type: 'array', items: { type: 'integer', minimum: 1e30 } },
      'schema.items to be a schema of which there are values',
    ],
    [{ type: 'array', items: { type: 'number', minimum: 1e-20, maximum: 2e-20 } }, 'no number lies within its bounds'],
    [{ type: 'object', properties: { a: { $ref: '#' } }, required: ['a'] }, 'it requires itself'],
    [
      { type: 'array', items: { anyOf: [{ type: 'null' }, { $ref: '#/$defs/a' }] }, $defs: { a: endless } },
      'of each of its alternatives',
    ],
    [lists(66), 'more than 64 values within each other'],
    [
      { type: 'array', minItems: 1, items: { type: 'array', minItems: 1, items: { type: 'integer', minimum: 1e30 } } },
      'Expected schema.items.items to be',
    ],
    [{ type: 'array', minItems: 1, items: endless, $defs: { a: endless } }, 'Expected schema.items.items to be'],
    [{ type: 'array', items: { anyOf: [{}, { type: 'number', minimum: 1e30, maximum: 1e30 }] } }, 'anyOf.1 to be'],
  ])('refuses %j', (schema, message) => {
    const refused = { code: 'ERR_INVALID_OPTION', message: expect.stringContaining(message) as string };
    expect(() => formatStart({ schema: schema as object })).toThrow(expect.objectContaining(refused));
  });

  test('values that may be read in two ways do not double the ways', () => {
    const start = items({ type: 'integer', maximum: 99 }, { type: 'number', minimum: 0 }, { type: 'integer' });
    expect(leads(`[${'1,'.repeat(30)}`, start)?.length).toBe(1);
    expect(leads(`[${'1,'.repeat(30)}1`, start)?.length).toBe(2);
    expect(whole('[-7,100,0.5]', start)).toBe(true);
    expect(leads('[-0.5', start)).toBeUndefined();
    const nested = items({ type: 'array', items: { type: ['integer', 'number'] } }, { type: 'array', minItems: 1 });
    expect(leads(`[${'[1,2,[3],4],'.repeat(9)}[`, nested)?.length).toBe(2);
    // No end of ways: each list may be of two kinds, in lists of two kinds.
    const tree = { anyOf: [1, 2].map((maxItems) => ({ type: 'array', maxItems, items: { $ref: '#' } })) };
    expect(leads('['.repeat(40), formatStart({ schema: tree }))?.length).toBe(1024);
  });

  test('strings of several lengths are one way to read a text', () => {
    const lengths = Array.from({ length: 300 }, (_, i) => ({ type: 'string', minLength: 3 * i, maxLength: 3 * i + 1 }));
    const start = items(...lengths, { type: 'string', minLength: 1, maxLength: 1 });
    expect(leads('["', start)?.length).toBe(1);
    for (let length = 0; length < 12; length++)
      expect(whole(`["${'x'.repeat(length)}"]`, start), String(length)).toBe(length % 3 < 2);
    expect(leads(`["${'x'.repeat(898)}`, start)).toBeDefined();
    expect(leads(`["${'x'.repeat(899)}`, start)).toBeUndefined();
  });

  test('the last of many literals and names may come', () => {
    const names = Array.from({ length: 5000 }, (_, i) => `n${i}`);
    const start = items({ enum: [...names, 1, 12, 'd\u00e9j\u00e0'] }, { const: 'n1' }, { type: 'null' });
    expect(whole('["n4999","n1",12,1,null,"d\\u00e9j\u00e0"]', start)).toBe(true);
    expect(leads('["n', start)?.length).toBe(1);
    for (const bad of ['["n5000', '["n1x', '[13', '["x']) expect(leads(bad, start), bad).toBeUndefined();
    const properties = Object.fromEntries(names.map((name) => [name, { type: 'null' }]));
    const object = formatStart({ schema: { type: 'object', properties, additionalProperties: false } });
    expect(whole('{"n4999":null,"n4":null}', object)).toBe(true);
    for (const bad of ['{"n4999":null,"n4999"', '{"n4":1', '{"m']) expect(leads(bad, object), bad).toBeUndefined();
  });

  test('leaves the tokens that may come', () => {
    const texts = ['', '1', ' ', '2,', '.5', '],', ']', '"', '1,"', 'x', '3]', '\u{1F433}"'];
    const start = items({ type: 'integer' }, { type: 'number', minimum: 0 }, { type: 'string', maxLength: 1 });
    const left = (text: string) => {
      const logits = new Float32Array(texts.length);
      const json = new JsonText(leads(text, start)!, texts);
      json.only(logits);
      texts.forEach((_, id) => expect(logits[id] === 0, texts[id]).toBe(json.accepts(id)));
      return texts.filter((_, id) => logits[id] === 0);
    };
    expect(left('[1')).toEqual(['1', ' ', '2,', '.5', ']', '1,"', '3]']);
    expect(left('[-1,')).toEqual(['1', ' ', '2,', '"', '1,"', '3]']);
    expect(left('[1,"')).toEqual(['1', ' ', ']', '"', 'x', '\u{1F433}"']);
  });

  test.each([
    ['a string', 'x', 6],
    ['a key', '{"x', 6],
    ['a string that has an end', '{"a":{"b":"xyz', 4],
    ['an escape', '{"c":"\\', 1],
  ])('leaves the tokens that may come in %s', (_, text, most) => {
    const texts = [
      '',
      'a',
      'b c',
      '\u00e9\u{1F433}',
      'six666',
      '"',
      'x"',
      '"}',
      '": "',
      '\\',
      '\\n',
      'a\\"',
      'a\nb',
      '\t',
      'n',
    ];
    const properties = { b: { type: 'string', maxLength: 3 + (most % 6) } };
    const schema = { type: 'object', properties: { a: { type: 'object', properties } } };
    const begun = text === 'x' ? leads('{"c":"x', formatStart('json')) : leads(text, formatStart({ schema }));
    const json = new JsonText(begun!, texts);
    const logits = new Float32Array(texts.length);
    json.only(logits);
    expect(Array.from(logits, (logit) => logit === 0)).toEqual(texts.map((_, id) => json.accepts(id)));
    expect(logits.some((logit) => logit === 0)).toBe(true);
  });

  test('never leads where nothing can follow', () => {
    // Any character that may come is taken, at random, until the value is whole.
    const random = randomNumbers(11);
    const characters = [...' \n{}[]":,-0123456789.eE\\utrufalsn', ...'nameagtxr\u00e9db'];
    for (let i = 0; i < 100; i++) {
      let [states, text] = [start, ''];
      while (!isEnd(states) && text.length < 400) {
        const next = characters.filter((char) => advance(states, char) !== undefined);
        expect(next.length, text).toBeGreaterThan(0);
        // What ends things comes more often, so that texts end.
        const ending = next.filter((char) => '"}],'.includes(char));
        const some = ending.length > 0 && random() < 0.4 ? ending : next;
        const char = some[Math.floor(random() * some.length)]!;
        states = advance(states, char)!;
        text += char;
      }
      if (!isEnd(states)) continue;
      const value = JSON.parse(text) as { name: string; age: number };
      expect(value.age >= 18 && value.age <= 120 && value.name.length > 0, text).toBe(true);
    }
  });

  test('a model is kept to it', async () => {
    await using model = await loadLanguageModel(SHIPPED, { maxContext: 512 });
    for (const seed of [1, 2, 3]) {
      let [text, finish] = ['', ''];
      const options = { format: { schema: person }, temperature: 1, seed, maxTokens: 120 };
      for await (const token of model.generate('The sea', options)) {
        text += token.text;
        finish = token.finish ?? '';
      }
      expect(leads(text, start), text).toBeDefined();
      if (finish === 'stop') expect(JSON.parse(text)).toHaveProperty('age');
    }
  });
});
