import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Addon } from '../../binding.js';

/** One place where the addon was looked for. */
export interface LoadAttempt {
  /** The file, or the folder that was searched for one. */
  readonly path: string;
  /** Why it is of no use; absent for the one that was loaded. */
  readonly failure?: string;
}

/** How loading the addon went. */
export interface LoadResult {
  readonly addon?: Addon;
  readonly attempts: readonly LoadAttempt[];
  /** What would make it load, as a sentence. Absent when it did. */
  readonly fix?: string;
}

/** What node-gyp-build exports: it knows where builds and prebuilt binaries lie. */
interface NodeGypBuild {
  path(root: string): string;
}

let loaded: LoadResult | undefined;

/** Finds and loads the addon, once. Never throws and never prints: callers decide what a failure means. */
export function loadAddon(): LoadResult {
  loaded ??= load();
  return loaded;
}

function load(): LoadResult {
  // Not named "require": the CommonJS build has its own, and a second one would be dead until its own line is reached.
  const req = createRequire(import.meta.url);
  let root: string;
  let file: string;
  try {
    root = packageRoot();
    file = (req('node-gyp-build') as NodeGypBuild).path(root);
  } catch (error) {
    const where = packageRootOr('hqq');
    return { attempts: [{ path: where, failure: firstLine(error) }], fix: buildIt(where) };
  }
  try {
    const addon = withPassiveThreads(() => req(file)) as Partial<Addon>;
    if (typeof addon.open !== 'function' || !Array.isArray(addon.isas)) throw new Error('It is an addon, but not that of hqq.');
    return { addon: addon as Addon, attempts: [{ path: file }] };
  } catch (error) {
    const failure = firstLine(error);
    return { attempts: [{ path: file, failure }], fix: fixFor(failure, root) };
  }
}

/**
 * Loads the addon with OpenMP told to sleep where it waits. Left alone, GNU's runtime spins for milliseconds at the end of
 * every parallel loop when another program has the cores, which makes small matrices ten times slower. It reads the
 * variable once, while it is being loaded; afterwards the environment is as it was, for this program and its children.
 */
function withPassiveThreads<T>(loadIt: () => T): T {
  if (process.env.OMP_WAIT_POLICY !== undefined || process.env.GOMP_SPINCOUNT !== undefined) return loadIt();
  process.env.OMP_WAIT_POLICY = 'passive';
  try {
    return loadIt();
  } finally {
    delete process.env.OMP_WAIT_POLICY;
  }
}

/** The folder of this package, from lib/backend as from dist: the nearest above whose package.json says `hqq`. */
export function packageRoot(): string {
  const start = path.dirname(fileURLToPath(import.meta.url));
  for (let folder = start; ; folder = path.dirname(folder)) {
    const manifest = path.join(folder, 'package.json');
    if (existsSync(manifest) && (JSON.parse(readFileSync(manifest, 'utf8')) as { name?: string }).name === 'hqq') return folder;
    if (folder === path.dirname(folder)) break;
  }
  throw new Error(`There is no package.json of hqq above ${start}: was it bundled into another program?`);
}

function packageRootOr(fallback: string): string {
  try {
    return packageRoot();
  } catch {
    return fallback; // the error itself was reported where it was first met
  }
}

/** What the dynamic linker says, and what to do about it. */
const LINKER_MESSAGES: readonly (readonly [pattern: RegExp, advice: string])[] = [
  [/libgomp/, 'Install the OpenMP runtime (Debian, Ubuntu: apt-get install libgomp1; Fedora: dnf install libgomp). Or: '],
  [/GLIBC|GLIBCXX|CXXABI/, 'The binary was built for a newer Linux than this one. '],
  [/ELF|wrong architecture|incompatible architecture|not a valid Win32|mach-o/i, 'The binary was built for another platform. '],
];

function fixFor(failure: string, root: string): string {
  const known = LINKER_MESSAGES.find(([pattern]) => pattern.test(failure));
  return `${known?.[1] ?? ''}${buildIt(root)}`;
}

function buildIt(root: string): string {
  const script = path.join(root, 'scripts', 'build-native.cjs');
  const haveTools = existsSync(path.join(root, 'node_modules', 'cmake-js')); // true in a checkout
  const tools = haveTools ? '' : 'npm install -D cmake-js node-addon-api node-api-headers && ';
  return `With CMake 3.20 or newer and a C++20 compiler, build it here: ${tools}node ${script}`;
}

function firstLine(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.split('\n', 1)[0]!.trim();
}
