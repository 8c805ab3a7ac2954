/** Which implementation computes, on which instruction set, and with how many threads where a call does not say (`js`: one). */
export interface BackendInfo {
  /** The C++ addon, or JavaScript. */
  readonly name: 'native' | 'js';
  /** Instruction set of its kernels. */
  readonly isa: 'avx512' | 'avx2' | 'neon' | 'scalar' | 'js';
  /** Threads that a call uses unless told otherwise. */
  readonly threads: number;
}
