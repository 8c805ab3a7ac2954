/** How many of `count` workers are ended in the middle of their work: fewer where each takes long, but five. */
export const racesOf = (count: number): number => Math.max(5, shareOf(count));

/** How many of `count` random cases are tried: all, but where each takes long (`HQQ_TEST_SHARE`, of 1). */
export const shareOf = (count: number): number => Math.ceil(count * Number(process.env.HQQ_TEST_SHARE || 1));
