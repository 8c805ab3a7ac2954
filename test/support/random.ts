/** Uniform numbers in [0, 1). `HQQ_TEST_SEED=n` repeats a run; the seed is printed, so that a failure can be repeated. */
export function seededRandom(): () => number {
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
