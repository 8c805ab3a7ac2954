import { expect, test } from 'vitest';
import { atOnce } from '../../lib/files/event-loop.js';
import { formatStart, readFormat } from '../../lib/runtime/text/json/json-text.js';
import { type Choice, type Kind, literalKind } from '../../lib/runtime/text/json/kinds.js';
import { schemaSteps } from '../../lib/runtime/text/json/schema.js';
import { demandValues } from '../../lib/runtime/text/json/values.js';
import { items, leads, whole } from '../support/json-text.js';

// How schemas are read, long and hostile ones too. What texts may be by them: json-text.test.ts.

test('looks for values of each schema once, however deep others lie that it waits for', () => {
  let looks = 0;
  const any: Choice = () => [];
  const read = (kind: Kind) => ({ choice: () => [(looks++, kind)], path: 'schema' });
  const chain = [read(literalKind(['1']))];
  const needing = ({ choice }: { choice: Choice }) =>
    read({ kind: 'array', prefix: [], items: choice, min: 1, max: 1 });
  while (chain.length < 60) chain.push(needing(chain.at(-1)!));
  const schemas = [...Array.from({ length: 100 }, () => needing(chain.at(-1)!)), ...chain];
  atOnce(demandValues(schemas, any));
  expect(looks).toBe(schemas.length);
});

test('looks at no more numbers once there are none of a kind', () => {
  let looks = 0;
  const schemas = Array.from({ length: 9 }, (_, i) => {
    const kind: Kind = { kind: 'number', integer: false, min: 5e-17, max: 6e-17 };
    Object.defineProperty(kind, 'min', { get: () => (looks++, 5e-17) });
    return { choice: () => [kind], path: `schema.${i}` };
  });
  const alone = (count: number) => {
    looks = 0;
    expect(() => atOnce(demandValues(schemas.slice(0, count), () => []))).toThrow('Expected schema.0 to be');
    return looks;
  };
  expect(alone(9)).toBe(alone(1));
});

test('is read once where it is read ahead', async () => {
  let looks = 0;
  const schema = { properties: {}, type: 'object' };
  Object.defineProperty(schema, 'type', { enumerable: true, get: () => (looks++, 'object') });
  expect(whole('{}', formatStart({ schema }))).toBe(true);
  const [each, format] = [looks, await readFormat({ schema })];
  for (const _ of [1, 2]) expect(whole('{}', formatStart(format))).toBe(true);
  expect([each > 0, looks]).toEqual([true, 2 * each]);
  await expect(readFormat({ schema: { type: 'text' } })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
});

test('of a megabyte is read in turns, until nobody waits for it', async () => {
  const properties = Object.fromEntries(Array.from({ length: 9000 }, (_, i) => [`${i}${'x'.repeat(90)}`, {}]));
  let turns = 0;
  const turn = () => {
    turns++;
    if (turns > 0) setImmediate(turn);
  };
  setImmediate(turn);
  const start = formatStart(await readFormat({ schema: { type: 'object', properties } }));
  const taken = turns;
  turns = -1;
  expect(taken).toBeGreaterThan(4);
  expect(leads(`{"8999${'x'.repeat(90)}":`, start)).toBeDefined();
  const reason = new Error('gone');
  const gone = readFormat(
    { schema: { type: 'array', items: { enum: Object.keys(properties) } } },
    AbortSignal.abort(reason),
  );
  await expect(gone).rejects.toBe(reason);
});

test('lists that a turn would be too short for are refused', () => {
  const names = Array.from({ length: 10_001 }, (_, i) => `${i}`);
  const most = (schema: object) => expect(() => formatStart({ schema })).toThrow('at most 10000 entries, got 10001');
  most({ type: 'array', items: { enum: names } });
  most({ type: 'object', required: names });
  most({ type: 'object', properties: Object.fromEntries(names.map((name) => [name, true])) });
  most({ type: 'array', prefixItems: names.map(() => true) });
  most({ type: names });
  for (const name of ['anyOf', 'oneOf', 'allOf']) most({ type: 'array', items: { [name]: names } });
  expect(leads('["9999"', formatStart({ schema: { type: 'array', items: { enum: names.slice(1) } } }))).toBeDefined();
});

/** Properties that may each be null, too. */
const nullable = (count: number, $defs: Record<string, object>) =>
  Object.fromEntries(
    Array.from({ length: count }, (_, i) => [`p${i}`, { $ref: `#/$defs/${Object.keys($defs)[0]}`, nullable: true }]),
  );

test('what short schemas list often is refused', () => {
  const refused = (count: number, $defs: Record<string, object>, message: string) =>
    expect(() => formatStart({ schema: { type: 'object', $defs, properties: nullable(count, $defs) } })).toThrow(
      message,
    );
  const texts = (count: number) => ({ a: { enum: Array.from({ length: count }, (_, i) => i) } });
  refused(1, texts(10_000), 'schema.p0 to be one of at most 10000 literals');
  const objects = { anyOf: Array.from({ length: 200 }, (_, i) => ({ type: 'object', required: [`${i}`] })) };
  refused(600, { objects }, 'at most 100000 alternatives and literals in all');
  refused(20, texts(5000), 'at most 100000 alternatives and literals in all');
  // Lists that are not changed are there once.
  const $defs = { a: { type: 'object', properties: {} }, ...{ b: texts(10_000).a } };
  const properties = {
    ...nullable(200, $defs),
    ...Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`q${i}`, { $ref: '#/$defs/b' }])),
  };
  expect(whole('{"p9":null,"q9":9999}', formatStart({ schema: { type: 'object', $defs, properties } }))).toBe(true);
  const a = {
    anyOf: Array.from({ length: 3000 }, (_, i) => ({ type: 'string', minLength: 3 * i, maxLength: 3 * i })),
  };
  const more = Array.from({ length: 40 }, (_, i) => ({
    anyOf: [{ $ref: '#/$defs/a' }, { type: 'string', minLength: 9001 + 2 * i }],
  }));
  expect(() => formatStart({ schema: { type: 'array', $defs: { a }, prefixItems: more } })).toThrow('100000');
});

test('numbers that lie in others are found among many', () => {
  const all = Array.from({ length: 2000 }, (_, i) => ({
    type: i % 2 ? 'number' : 'integer',
    minimum: i,
    maximum: 9999 - i,
  }));
  expect(leads('[', items(...all))?.length).toBeLessThan(4);
  const apart = all.map((one, i) => ({ ...one, maximum: 9999 + i }));
  expect(() => items(...apart)).toThrow('256 alternatives, got 2000');
  // Against each with each.
  for (let seed = 1; seed < 200; seed++) {
    const some = Array.from({ length: 6 }, (_, i) => {
      const [minimum, length] = [(seed * (i + 3)) % 5, (seed * (7 * i + 1)) % 4];
      return { type: (seed >> i) % 2 ? 'number' : 'integer', minimum, maximum: minimum + length };
    });
    const start = items(...some);
    for (let half = 0; half < 20; half++) {
      const number = half / 2;
      const is = some.some(
        ({ type, minimum, maximum }) => number >= minimum && number <= maximum && (type === 'number' || half % 2 === 0),
      );
      expect(whole(`[${number}]`, start), `${JSON.stringify(some)} ${number}`).toBe(is);
    }
  }
});

test('lists are read a piece at a time', () => {
  let [looks, most] = [0, 0];
  const counted = <T extends object>(list: T) =>
    new Proxy(list, { get: (of, name, self) => (looks++, Reflect.get(of, name, self) as unknown) });
  const objects = { anyOf: Array.from({ length: 20 }, (_, i) => ({ type: 'object', required: [`${i}`] })) };
  const refs = counted(Array.from({ length: 3000 }, () => ({ $ref: '#/$defs/objects' })));
  const names = counted(Array.from({ length: 3000 }, (_, i) => i));
  const steps = schemaSteps({ $defs: { objects }, type: 'array', prefixItems: [{ anyOf: refs }, { enum: names }] });
  while (!steps.next().done) [looks, most] = [0, Math.max(most, looks)];
  expect(most).toBeGreaterThan(0);
  expect(most).toBeLessThan(1000);
});
