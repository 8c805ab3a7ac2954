/** Scales and zeros, `[out, in / groupSize]`, of a weight that is quantized in its source: each number is `(code - zero) * scale`. */
export interface Grid {
  readonly nbits: number;
  readonly groupSize: number;
  readonly scale: Float32Array;
  readonly zero: Float32Array;
}

/**
 * Codes of a weight `[out, in]`, in its order, and scales and zeros of its groups: each number is `(code - zero) * scale`, with scale and zero as
 * they will be stored. They are numbers of the type that they are stored in; those that become bytes are as they are before that. Of a type of blocks:
 * codes are the bytes of the blocks, row by row, and hold scales and zeros.
 */
export interface ChosenCodes {
  readonly codes: Uint8Array;
  readonly scale: Float32Array;
  readonly zero: Float32Array;
}
