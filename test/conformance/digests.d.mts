import type * as js from '../../lib/js.js';

export function digests(hqq: typeof js): Promise<Record<string, string>>;
export function floats(hqq: typeof js): Promise<Float32Array>;
