import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Addon } from '../../../binding.js';
import { forbidden } from './forbidden.js';
import { requireNodeGypBuild } from './gyp.js';
import { hasLibc, libc, target } from './machine.js';

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
  let root: string;
  try {
    root = packageRoot();
  } catch (error) {
    return { attempts: [{ path: 'hqq', failure: messageOf(error) }], fix: forbidden(error) ?? BUNDLED };
  }
  let file: string;
  try {
    file = forLibc((requireNodeGypBuild(root) as NodeGypBuild).path(root));
  } catch (error) {
    return {
      attempts: [...searched(root), { path: root, failure: messageOf(error) }],
      fix: forbidden(error) ?? misled() + fixForMissing(root),
    };
  }
  try {
    // By path, from any place: this file may be part of a bundle, which has no say in it.
    const addon = withPassiveThreads(() => createRequire(file)(file)) as Partial<Addon>;
    if (typeof addon.open !== 'function' || !Array.isArray(addon.isas))
      throw new Error('It is an addon, but not that of hqq.');
    return { addon: addon as Addon, attempts: [{ path: file }] };
  } catch (error) {
    const failure = messageOf(error);
    return { attempts: [{ path: file, failure }], fix: forbidden(error) ?? misled() + fixForBroken(failure, root) };
  }
}

/**
 * The binary for the C library of this process. node-gyp-build takes Alpine for musl and all else for glibc: other systems
 * have musl too (Void, Chimera, images with nothing but Node), and some people put a glibc Node on Alpine. `LIBC` overrides.
 */
function forLibc(file: string): string {
  const chosen = /\.(glibc|musl)\.node$/.exec(file)?.[1];
  const other = chosen === 'glibc' ? 'musl' : 'glibc';
  if (chosen === undefined || process.env.LIBC || !hasLibc(other) || !libc()?.startsWith(other)) return file;
  const twin = file.replace(/\w+\.node$/, `${other}.node`);
  return existsSync(twin) ? twin : file;
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

/**
 * This file, from which everything else is found. Where a bundler has made CommonJS of it, `import.meta` is empty and Node's
 * `__filename` is the bundle.
 */
function thisFile(): string {
  return import.meta.url ? fileURLToPath(import.meta.url) : __filename;
}

/** The folder of this package: the nearest whose package.json says `hqq`, from lib/backend as from dist. */
export function packageRoot(): string {
  // In the words that tracers of files (@vercel/nft, so Vercel and Next.js) evaluate: they copy this folder along.
  const prebuilds = `${import.meta.dirname}/../prebuilds`;
  const file = thisFile();
  const start = existsSync(prebuilds) ? path.dirname(path.resolve(prebuilds)) : path.dirname(file);
  for (let folder = start; ; folder = path.dirname(folder)) {
    const manifest = path.join(folder, 'package.json');
    if (existsSync(manifest) && (JSON.parse(readFileSync(manifest, 'utf8')) as { name?: string }).name === 'hqq')
      return folder;
    if (folder === path.dirname(folder)) break;
  }
  try {
    return path.dirname(createRequire(file).resolve('hqq/package.json')); // bundled, with the package installed beside it
  } catch {
    throw new Error(`No package.json of hqq is above ${file}, and no node_modules that it can see holds the package.`);
  }
}

const BUNDLED =
  'hqq was bundled into another program, and a bundle cannot hold its binary: mark hqq as external (esbuild: --external:hqq), ' +
  'and have node_modules/hqq where the program runs.';

/** Where node-gyp-build looks, and what is there. */
function searched(root: string): LoadAttempt[] {
  const { platform, arch } = target();
  const base = process.env.HQQ_PREBUILD || root;
  const built = process.env.PREBUILDS_ONLY ? [] : [path.join(base, 'build', 'Release')];
  return [...built, path.join(base, 'prebuilds', `${platform}-${arch}`)].map((folder) => {
    const files = filesIn(folder);
    if (files === undefined) return { path: folder, failure: 'There is no such folder.' };
    const binaries = files.filter((name) => name.endsWith('.node'));
    return {
      path: folder,
      failure: binaries.length === 0 ? 'It holds no binary.' : `It holds ${binaries.join(', ')}: not for this system.`,
    };
  });
}

function filesIn(folder: string): string[] | undefined {
  try {
    return readdirSync(folder);
  } catch {
    return undefined;
  }
}

/** What to do first, where variables of node-gyp-build turn it away from the package, or from what is built there. */
function misled(): string {
  const names = ['HQQ_PREBUILD', 'PREBUILDS_ONLY'].filter((name) => process.env[name]);
  if (names.length === 0) return '';
  return `The environment variable${names.length > 1 ? 's' : ''} ${names.join(' and ')} decided where to look: unset ${names.length > 1 ? 'them' : 'it'} first. `;
}

/** What to do where no binary was found. */
function fixForMissing(root: string): string {
  const there = (filesIn(path.join(root, 'prebuilds')) ?? []).filter((name) => /^\w+-\w+$/.test(name)); // one folder a system
  const { platform, arch } = target();
  if (there.includes(`${platform}-${arch}`)) return buildIt(root); // another C library, as a rule
  if (there.length > 0)
    return `hqq has binaries for ${there.join(', ')}, not for ${platform}-${arch}. ${buildIt(root)}`;
  if (isCheckout(root)) return buildIt(root);
  return `Binaries come with the package, in its folder prebuilds: install it again, or ship them along. ${buildIt(root)}`;
}

/** What the dynamic linker says, and what to do about it. */
const LINKER_MESSAGES: readonly (readonly [pattern: RegExp, advice: string])[] = [
  [
    /libgomp/,
    'Install the OpenMP runtime (Debian, Ubuntu: apt-get install libgomp1; Fedora: dnf install libgomp). Or: ',
  ],
  [/GLIBC|GLIBCXX|CXXABI/, 'The binary was built for a newer Linux than this one. '],
  [
    /ELF|wrong architecture|incompatible architecture|not a valid Win32|mach-o|file too short/i,
    'The file is damaged, or for another platform: install hqq again. Or: ',
  ],
];

function fixForBroken(failure: string, root: string): string {
  const known = LINKER_MESSAGES.find(([pattern]) => pattern.test(failure));
  return `${known?.[1] ?? ''}${buildIt(root)}`;
}

const isCheckout = (root: string) => existsSync(path.join(root, 'node_modules', 'cmake-js'));

function buildIt(root: string): string {
  const script = path.join(root, 'scripts', 'build-native.cjs');
  const tools = isCheckout(root) ? '' : 'npm install -D cmake-js node-addon-api node-api-headers && ';
  return `With CMake 3.20 or newer and a C++20 compiler, build it here: ${tools}node ${script}`;
}

function messageOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.split('\n', 1)[0]!.trim();
}
