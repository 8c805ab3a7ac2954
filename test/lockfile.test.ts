import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

// What `npm ci` installs: the same from any registry, and on every Node that the package is for.

interface Locked {
  readonly resolved?: string;
  readonly engines?: { readonly node?: string };
}

const read = (name: string) =>
  JSON.parse(readFileSync(fileURLToPath(new URL(`../${name}`, import.meta.url)), 'utf8')) as unknown;
const { packages } = read('package-lock.json') as { packages: Readonly<Record<string, Locked>> };
const OLDEST = Number(/^>=(\d+)$/.exec((read('package.json') as { engines: { node: string } }).engines.node)![1]);

/** Whether a range as packages write it (`18 || 20 || >=22`, `^20.5.0 || >=22`) takes some release of a major version. */
function takes(range: string, major: number): boolean {
  return range.split('||').some((alternative) => {
    const [, operator, number] = /^\s*([<>=^~]*)\s*v?(\d+|\*)/.exec(alternative) ?? [];
    return number === '*' || (operator?.startsWith('>') ? Number(number) <= major : Number(number) === major);
  });
}

test('no package is bound to the registry that it was locked from', () => {
  const files = Object.entries(packages).filter(([name, { resolved }]) => name !== '' && resolved !== undefined);
  expect(files.map(([name]) => name)).toEqual([]);
});

test(`every package runs on Node ${OLDEST}`, () => {
  expect(OLDEST).toBe(20);
  const asking = Object.entries(packages).filter(([, { engines }]) => engines?.node !== undefined);
  expect(asking.length).toBeGreaterThan(100);
  expect(asking.filter(([, { engines }]) => !takes(engines!.node!, OLDEST)).map(([name]) => name)).toEqual([]);
});
