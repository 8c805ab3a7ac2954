/**
 * Numbers that kernels of both languages are built on. Native ones have them too: `Constants` of binding.d.ts says what each
 * is, and test/constants.test.ts compares them.
 */
export const LANES = 16;
export const BLOCK_GROUPS = 16;
export const PANEL = 16;
export const QUAD_BYTES = PANEL * 4;
export const INPUT_SEGMENT = 32;
export const KEY_STRIP = 16;
export const DISTANCE_TILE = 16384;
export const CACHE_GROUP = 64;
export const CACHE_TYPES = [
  { name: 'float32', bytes: 4 },
  { name: 'float16', bytes: 2 },
  { name: 'int8', bytes: 1 },
] as const;

/** Longest group that solvers which fit scale and zero together solve beside others: see native/kernels/solve/lanes.h. */
export const SIDE_BY_SIDE = 256;

/** Longest group whose products, summed as integers, fit 32 bits. */
export const LONGEST_GROUP = 1 << 16;

/** Most steps of a solver. */
export const MAX_ITERATIONS = 1000;

/** Most threads of a call: beyond any machine's cores, and short of what exhausts a process. */
export const MAX_THREADS = 256;
