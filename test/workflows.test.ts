import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

// What .github/workflows promises, as far as its text shows it. `actionlint` and `zizmor` read the rest (ci.yml).

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const FOLDER = join(ROOT, '.github', 'workflows');
const NAMES = readdirSync(FOLDER);
const textOf = (name: string) => readFileSync(join(FOLDER, name), 'utf8');

/** The jobs of a workflow, by name: indented by two, below `jobs:`. */
function jobsOf(name: string): Map<string, string> {
  const jobs = textOf(name)
    .split(/^jobs:\n/m)[1]!
    .split(/^(?=  [a-z-]+:\n)/m);
  return new Map(jobs.map((text) => [/^\s*([a-z-]+):/.exec(text)?.[1] ?? '', text]));
}

/** The versions in `node: [20, 22]` of a job. */
const versionsOf = (job: string) => /node: \[(.+)\]/.exec(job)![1]!.split(', ');

test.each(NAMES)('%s: every action is pinned to a commit and says its version, and tokens may read only', (name) => {
  const uses = [...textOf(name).matchAll(/uses: (.+)$/gm)]
    .map(([, action]) => action!)
    .filter((action) => !action.startsWith('./'));
  expect(uses.length).toBeGreaterThan(0);
  for (const action of uses) expect(action).toMatch(/^[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+/);
  expect(textOf(name)).toMatch(/^permissions:\n {2}contents: read\n/m);
  for (const [, job] of jobsOf(name)) expect(job).toMatch(/timeout-minutes: \d|uses: \.\//);
});

test('each binary is tested on its own system, with every version of Node', () => {
  const targets = JSON.parse(readFileSync(join(ROOT, 'scripts', 'prebuilds.json'), 'utf8')) as {
    platform: string;
    arch: string;
    libc?: string;
  }[];
  const jobs = jobsOf('prebuild.yml');
  const systems = (libc: boolean) =>
    targets.filter((target) => (target.libc === 'musl') === libc).map(({ platform, arch }) => `${platform}-${arch}`);
  const tested = [...jobs.get('test')!.matchAll(/\{ system: ([\w-]+), runner: /g)].map(([, system]) => system);
  expect(tested.sort()).toEqual(systems(false).sort());
  const alpine = [...jobs.get('musl')!.matchAll(/\{ arch: (\w+), runner: /g)].map(([, arch]) => `linux-${arch}`);
  expect(alpine.sort()).toEqual(systems(true).sort());
  const versions = [
    .../^const VERSIONS = \[(.+)\]/m
      .exec(readFileSync(join(ROOT, 'scripts', 'test-prebuilds.mjs'), 'utf8'))![1]!
      .matchAll(/\d+/g),
  ].map(String);
  expect(versions).toContain('20');
  for (const job of ['test', 'musl']) expect(versionsOf(jobs.get(job)!)).toEqual(versions);
  expect(['20', ...versionsOf(jobsOf('ci.yml').get('node')!)]).toEqual(versions); // .ci/run itself is Node 20's
});

test('a version is published with its provenance, from what the tests of this commit and its binaries have passed', () => {
  const jobs = jobsOf('release.yml');
  const publish = jobs.get('publish')!;
  expect(publish).toMatch(/needs: \[plan, ci, prebuild\]/);
  expect(publish).toMatch(/id-token: write/);
  expect(publish).toMatch(/run: npm publish --provenance (?!.*--ignore-scripts)/); // prepack looks for the binaries
  // npm refuses a package whose repository is not the one that its provenance names.
  expect(publish).toMatch(/run: npm pkg set .*"repository\.url=git\+\$GITHUB_SERVER_URL\/\$GITHUB_REPOSITORY\.git"\n/);
  expect(publish.indexOf('npm pkg set')).toBeLessThan(publish.indexOf('npm publish'));
  for (const [name, job] of jobs) if (name !== 'publish') expect(job).not.toContain('id-token');
});
