import { format } from 'node:util';
import { ASYMMETRIC_MATCHERS_OBJECT, chai, JestAsymmetricMatchers, JestChaiExpect, JestExtend } from '@vitest/expect';

// Takes vitest's place where vitest does not run: in a program made of the test files, for any Node on any machine, also an
// emulated one. What tests expect is judged by vitest's own matchers.

for (const plugin of [JestExtend, JestChaiExpect, JestAsymmetricMatchers]) chai.use(plugin);
const asymmetric = (globalThis as Record<symbol, unknown>)[ASYMMETRIC_MATCHERS_OBJECT];
export const expect = Object.assign(
  (value: unknown, message?: string) => chai.expect(value, message),
  chai.expect,
  asymmetric,
);

type Body = (...values: never[]) => unknown;
/** `each(rows)(name, body)` */
type Each = (rows: readonly unknown[]) => (name: string, body: Body) => void;

interface Test {
  readonly name: string;
  readonly body: () => unknown;
}

const tests: Test[] = [];
const endings: (() => unknown)[] = [];
const groups: string[] = [];

/** A row's name: printf's marks take the values in turn, `$key` takes a property. */
function nameOf(name: string, row: unknown): string {
  const values = Array.isArray(row) ? row : [row];
  const marks = name.match(/%[sidfjo]/g)?.length ?? 0;
  const [first] = values as [Record<string, unknown>];
  return format(
    name.replace(/\$(\w+)/g, (_, key: string) => String(first[key])),
    ...values.slice(0, marks),
  );
}

function withEach(declare: (name: string, body: () => unknown) => void) {
  const each: Each = (rows) => (name, body) => {
    for (const row of rows) {
      const values = (Array.isArray(row) ? row : [row]) as never[];
      declare(nameOf(name, row), () => body(...values));
    }
  };
  // A group of tests that cannot run is not one that passes: whoever wants it run must not ask for it where it cannot.
  const refuse = () => {
    throw new Error('Expected the condition of every runIf to hold: part of the suite would be left out.');
  };
  const runIf = (condition: boolean) => (condition ? declare : refuse());
  return Object.assign(declare, {
    each,
    runIf: Object.assign((condition: boolean) => Object.assign(runIf(condition), { each }), {}),
  });
}

export const test = withEach((name, body) => {
  tests.push({ name: [...groups, name].join(' > '), body });
});

export const describe = withEach((name, body) => {
  groups.push(name);
  body();
  groups.pop();
});

/** Runs when all tests have run. */
export function afterAll(body: () => unknown): void {
  endings.push(body);
}

/** Runs what was declared and whose name matches, one after the other. Prints what fails, and sums as all test programs of the project do. */
export async function runAll(match: RegExp): Promise<boolean> {
  let failed = 0;
  const wanted = tests.filter(({ name }) => match.test(name));
  for (const { name, body } of wanted) {
    try {
      await body();
    } catch (error) {
      failed++;
      console.log(`FAIL ${name}\n${error instanceof Error ? error.stack : String(error)}`);
    }
  }
  for (const end of endings) await end();
  console.log(`${wanted.length - failed} passed, ${failed} failed`);
  return failed === 0 && wanted.length > 0;
}
