/** Uniform numbers in [0, 1). `HQQ_TEST_SEED=n` repeats a run; the seed is printed, so that a failure can be repeated. */
export function seededRandom(): () => number;
/** Uniform numbers in [0, 1), the same for the same seed. mulberry32 */
export function randomOf(seed: number): () => number;
/** Normal numbers of a standard deviation. */
export function gaussian(random: () => number, deviation: number): () => number;
/** Numbers of Student's t distribution, whose tails are heavy, times `scale`. */
export function studentT(random: () => number, freedom: number, scale: number): () => number;
