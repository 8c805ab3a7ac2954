/**
 * Keys of the attention's cache that lie side by side, `[headDim, KEY_BLOCK]` of a head: sums of sixteen scores go along the
 * lanes of vectors, and across none. kLanes of native/kernels/table.h.
 */
export const KEY_BLOCK = 16;
