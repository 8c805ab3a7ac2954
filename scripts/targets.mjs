// What there are prebuilt binaries for: scripts/prebuilds.json, and how each is called.
import { readFileSync } from 'node:fs';

/** @type {{ platform: string, arch: string, libc?: string, zig: string }[]} */
export const targets = JSON.parse(readFileSync(new URL('prebuilds.json', import.meta.url), 'utf8'));

/** linux-x64-glibc, darwin-arm64 */
export const nameOf = ({ platform, arch, libc }) => [platform, arch, libc].filter(Boolean).join('-');

/** Below prebuilds/: linux-x64/hqq.glibc.node, darwin-arm64/hqq.node */
export const fileOf = ({ platform, arch, libc }) =>
  `${platform}-${arch}/${['hqq', libc, 'node'].filter(Boolean).join('.')}`;
