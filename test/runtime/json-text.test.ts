import { describe, expect, test } from 'vitest';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import { advanceJson, JSON_START } from '../../lib/runtime/text/json-text.js';
import { randomNumbers } from '../../lib/runtime/text/sampling.js';
import { SHIPPED } from '../support/language-models.js';

const whole = (text: string) => advanceJson(JSON_START, text)?.mode === 'end';

describe('JSON by the character', () => {
  test.each([
    '{}',
    ' {"a" : [1, -0.5e+3, true, false, null, "x\\u00e9\\n\\"", {}, []]}',
    '{"a":{"b":[[0],{"c":1e9}]},"d":""}',
    '{"\u00e9\u{1F433}":10.25}',
  ])('takes %s', (text) => {
    expect(whole(text)).toBe(true);
    expect(() => JSON.parse(text) as unknown).not.toThrow();
    for (let end = 1; end < text.trimEnd().length; end++) {
      expect(advanceJson(JSON_START, text.slice(0, end)), text.slice(0, end)).toBeDefined();
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
    `{${' '.repeat(25)}`,
    `{"a":${'['.repeat(64)}`,
  ])('refuses %j', (text) => {
    expect(advanceJson(JSON_START, text)).toBeUndefined();
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
    const state = advanceJson(JSON_START, text);
    expect(state, text).toBeDefined();
    expect(finish === 'stop').toBe(state?.mode === 'end');
  }
  expect(() => model.generate('x', { format: 'xml' as 'json' })).toThrow('Expected format to be json, got "xml".');
});
