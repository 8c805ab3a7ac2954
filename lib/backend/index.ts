import { cpus } from 'node:os';
import type { Addon, Backend } from '../../binding.js';
import { HqqError, show } from '../messages/errors.js';
import { suggestion } from '../messages/suggestion.js';
import { refuseSurplus } from '../messages/surplus.js';
import { backendChoice, defaultThreads, isaChoice, VARIABLES } from './environment.js';
import type { BackendInfo } from './info.js';
import { createJsBackend } from './js/backend.js';
import { type LoadAttempt, type LoadResult, loadAddon } from './native/load.js';
import { cpuFeatures, libc } from './native/machine.js';
import { workerThreads } from './worker-threads.js';

/** What threads are told of each other: that the warning was given. */
const WARNED = 'hqq: computes in JavaScript';

let active: Backend | undefined;
let js: Backend | undefined;
const native = new Map<string, Backend>();

/**
 * The implementation that the package computes with: chosen at the first call, then the same for the life of the process.
 *
 * `HQQ_BACKEND=auto|native|js` and `HQQ_ISA=avx512|avx2|neon|scalar` choose; by default the addon, on the best instruction
 * set of the machine. Where it does not load, JavaScript takes over with the same results, and one process warning with code
 * `HQQ_JS_BACKEND` says why.
 *
 * @throws {HqqError} `ERR_BACKEND_UNAVAILABLE` when what the environment demands is not to be had; `ERR_INVALID_OPTION` when it
 *   demands something that does not exist.
 */
export function activeBackend(): Backend {
  if (active !== undefined) return active;
  const chosen = choose();
  if (chosen.name === 'js' && backendChoice() !== 'js') warnOfFallback();
  active = chosen;
  return chosen;
}

/** The same, if it was chosen yet. */
export function chosenBackend(): Backend | undefined {
  return active;
}

/**
 * Which implementation computes. The first call loads it.
 *
 * @example
 * backend() // { name: 'native', isa: 'avx512', threads: 16 }
 * @throws {HqqError} as every other call, when the environment demands what is not to be had.
 */
export function backend(): BackendInfo {
  refuseSurplus(arguments.length, 0, 'backend()');
  return describe(activeBackend());
}

function describe({ name, isa }: Backend): BackendInfo {
  const threads = defaultThreads(); // read in any case: a wrong HQQ_THREADS is an error everywhere
  return Object.freeze({ name, isa, threads: name === 'js' ? 1 : threads });
}

/** `'js'`, or native kernels on the instruction set of that name; for tests and benchmarks, which run them all. */
export function openBackend(name: string): Backend {
  if (name === 'js') {
    js ??= createJsBackend();
    return js;
  }
  const result = loadAddon();
  if (!result.addon)
    throw new HqqError('ERR_BACKEND_UNAVAILABLE', `The native backend does not load. ${story(result)}`);
  return openIsa(result.addon, name, 'the instruction set');
}

/** Every name that `openBackend` takes on this machine, best first. */
export function availableBackends(): string[] {
  return [...(loadAddon().addon?.isas ?? []), 'js'];
}

function choose(): Backend {
  const choice = backendChoice();
  if (choice === 'js') return openBackend('js');
  const isa = isaChoice();
  const result = loadAddon();
  if (result.addon) return openIsa(result.addon, isa ?? result.addon.isas[0]!, 'the environment variable HQQ_ISA');
  if (choice === 'native' || isa !== undefined) {
    const demand = choice === 'native' ? 'HQQ_BACKEND=native' : `HQQ_ISA=${isa}`;
    throw new HqqError(
      'ERR_BACKEND_UNAVAILABLE',
      `${demand} demands the native backend, which does not load. ${story(result)}`,
    );
  }
  return openBackend('js');
}

/** Once: not again in the package's other module format, nor in workers that are started from here. */
function warnOfFallback(): void {
  const { getEnvironmentData, setEnvironmentData } = workerThreads();
  if (getEnvironmentData(WARNED)) return;
  setEnvironmentData(WARNED, true);
  process.emitWarning('hqq computes in JavaScript: the same results, but many times slower.', {
    code: 'HQQ_JS_BACKEND',
    detail: `${story(loadAddon())}\nHQQ_BACKEND=js chooses JavaScript without this warning.`,
  });
}

/** Native kernels on the instruction set `name`, which `what` asked for. */
function openIsa(addon: Addon, name: string, what: string): Backend {
  const known = native.get(name);
  if (known) return known;
  const runnable: readonly string[] = addon.isas;
  if (!runnable.includes(name)) {
    const compiled = (addon.compiled as readonly string[]).includes(name);
    const remark = compiled ? ' It is compiled in, but this machine cannot run it.' : suggestion(name, runnable);
    throw new HqqError(
      'ERR_BACKEND_UNAVAILABLE',
      `Expected ${what} to be one of ${runnable.join(', ')}, which this machine can run, got ${show(name)}.${remark}`,
    );
  }
  const opened = addon.open(name);
  native.set(name, opened);
  return opened;
}

/** What was tried, and what would help. */
function story({ attempts, fix }: LoadResult): string {
  const tried = attempts.map(({ path, failure }) => `Tried ${path}: ${(failure ?? 'loaded').replace(/\.?$/, '.')}`);
  return [...tried, ...(fix === undefined ? [] : [fix])].join(' ');
}

/** What `hqq doctor` tells: the machine, what was tried, what was chosen, and what would help. */
export interface Diagnosis {
  readonly version: { readonly node: string; readonly napi: string };
  readonly platform: string;
  readonly arch: string;
  /** The C library, where there is a choice: `glibc 2.36`, `musl`. */
  readonly libc: string | undefined;
  /** As the system names the processor. */
  readonly cpu: string;
  /** Features of it that kernels use, as the addon finds them; as the system lists them where the addon does not load. */
  readonly features: readonly string[];
  /** Where the addon was looked for. */
  readonly attempts: readonly LoadAttempt[];
  /** What would make the addon load, if it does not. */
  readonly fix: string | undefined;
  /** Instruction sets that the addon holds, and of those the ones that this machine can run; best first. */
  readonly compiled: readonly string[];
  readonly runnable: readonly string[];
  /** What is behind parallel loops of the addon. */
  readonly threading: 'openmp' | 'threads' | undefined;
  /** The variables that are set, among those that matter. */
  readonly environment: { readonly [name: string]: string };
  /** What calls use, unless there is an `error`. */
  readonly chosen: BackendInfo | undefined;
  /** Why calls fail: an environment that demands what is not to be had. */
  readonly error: string | undefined;
}

/** Tells how the choice of a backend went, and never throws. */
export function diagnose(): Diagnosis {
  const { addon, attempts, fix } = loadAddon();
  let chosen: BackendInfo | undefined;
  let error: string | undefined;
  try {
    chosen = describe(active ?? choose()); // not activeBackend(): the report itself says what its warning would
  } catch (cause) {
    error = cause instanceof Error ? cause.message : String(cause);
  }
  return {
    version: { node: process.version, napi: process.versions.napi ?? 'none' },
    platform: process.platform,
    arch: process.arch,
    libc: libc(),
    cpu: cpus()[0]?.model.trim() || 'unknown',
    features: addon?.features ?? cpuFeatures(),
    attempts,
    fix,
    compiled: addon?.compiled ?? [],
    runnable: addon?.isas ?? [],
    threading: addon?.threading,
    environment: Object.fromEntries(
      VARIABLES.flatMap((name) => (process.env[name] ? [[name, process.env[name]]] : [])),
    ),
    chosen,
    error,
  };
}
