import { activeBackend } from './host.js';
import { runTaskSync } from './run.js';

/** Floats below which large pages bring nothing: they have two megabytes each. */
const LARGE = 1 << 19;

/** An array of zeros that will be read over and over, from memory: in large pages that is up to a third faster. */
export function largeFloats(count: number): Float32Array<ArrayBuffer> {
  const array = new Float32Array(count);
  if (count >= LARGE) runTaskSync(activeBackend(), 'largePages', { array, threads: 1 });
  return array;
}
