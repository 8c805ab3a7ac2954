import { existsSync, readFileSync } from 'node:fs';

// What this machine is, as far as it decides which binary fits. Read for reports and failures only: none of it is cheap.

/** What binaries are chosen by: node-gyp-build reads the same variables, with which npm installs for another machine. */
export function target(): { readonly platform: string; readonly arch: string } {
  const { npm_config_platform: platform, npm_config_arch: arch } = process.env;
  return { platform: platform || process.platform, arch: arch || process.arch };
}

/** The C library: `glibc 2.36`, `musl`; undefined where there is no choice of them. */
export function libc(): string | undefined {
  if (process.platform !== 'linux') return undefined;
  const { report } = process as { report?: NodeJS.ProcessReport & { excludeNetwork?: boolean } };
  if (report !== undefined) report.excludeNetwork = true; // else it may look up the names of peers
  const { header } = (report?.getReport() ?? {}) as { header?: { glibcVersionRuntime?: string } };
  if (header?.glibcVersionRuntime !== undefined) return `glibc ${header.glibcVersionRuntime}`;
  return hasLibc('musl') ? 'musl' : 'unknown';
}

/** Where the C libraries of Linux have their loaders: a machine may have both. */
const LOADERS = {
  glibc: { x64: '/lib64/ld-linux-x86-64.so.2', arm64: '/lib/ld-linux-aarch64.so.1' },
  musl: { x64: '/lib/ld-musl-x86_64.so.1', arm64: '/lib/ld-musl-aarch64.so.1' },
} as const;

/** Whether the machine has a C library, which need not be that of this process. Cheap, unlike `libc`. */
export function hasLibc(name: keyof typeof LOADERS): boolean {
  return (process.arch === 'x64' || process.arch === 'arm64') && existsSync(LOADERS[name][process.arch]);
}

/** Features that kernels use, by the names that Linux gives them. */
const FEATURES = [
  ...['sse4_2', 'avx', 'f16c', 'fma', 'avx2', 'avx512f', 'avx512dq', 'avx512bw', 'avx512vl', 'avx512_vnni', 'avx_vnni'],
  ...['asimd', 'asimddp', 'i8mm'],
];

/** Features of the processor as the system lists them, where it does. */
export function cpuFeatures(): string[] {
  try {
    const flags =
      /^(?:flags|Features)\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1]?.trim().split(/\s+/) ?? [];
    return FEATURES.filter((name) => flags.includes(name));
  } catch {
    return []; // not Linux
  }
}
