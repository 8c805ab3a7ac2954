// Random numbers of tests and benches: JavaScript, so that benches read it as it is.

/** Uniform numbers in [0, 1). `HQQ_TEST_SEED=n` repeats a run; the seed is printed, so that a failure can be repeated. */
export function seededRandom() {
  const seed = Number(process.env.HQQ_TEST_SEED ?? Date.now() % 1e9);
  console.log(`HQQ_TEST_SEED=${seed}`);
  let state = seed >>> 0 || 1;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 16), 0x45d9f3b);
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x45d9f3b);
    return ((mixed ^ (mixed >>> 16)) >>> 0) / 2 ** 32;
  };
}

/** Uniform numbers in [0, 1), the same for the same seed. mulberry32 */
export function randomOf(seed) {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Normal numbers of a standard deviation. */
export function gaussian(random, deviation) {
  return () => deviation * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** Numbers of Student's t distribution, whose tails are heavy, times `scale`. */
export function studentT(random, freedom, scale) {
  const normal = gaussian(random, 1);
  return () => {
    let squares = 0;
    for (let i = 0; i < freedom; i++) squares += normal() ** 2;
    return (scale * normal()) / Math.sqrt(squares / freedom);
  };
}
