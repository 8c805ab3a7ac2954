/** Which implementation computes, on which instruction set, and with how many threads where a call does not say (`js`: one). */
export interface BackendInfo {
  readonly name: 'native' | 'js';
  readonly isa: 'avx512' | 'avx2' | 'neon' | 'scalar' | 'js';
  readonly threads: number;
}
