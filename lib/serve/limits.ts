/** What a server bears before it says no: memory and time are finite, and clients are strangers. */
export interface Limits {
  /** Texts that are written at once: each has a cache of keys and values. */
  readonly active: number;
  /** Texts that wait for one of these to end; more get 429. */
  readonly queue: number;
  /** Texts that one request may ask for: prompts times `n`; never more than are written and wait. */
  readonly texts: number;
  /** Tokens that a text may be written on. */
  readonly maxTokens: number;
  readonly promptTokens: number;
  /** Characters that a prompt may have for each token: texts have 3 to 6. Tokenizing 256 kB can take seconds, and all wait for it. */
  readonly tokenCharacters: number;
  readonly bodyBytes: number;
  /** Milliseconds that a client may leave a stream unread: its place is one that others wait for. */
  readonly stallMs: number;
  /** Milliseconds that requests under way have when the server is told to stop. */
  readonly graceMs: number;
}

export const LIMITS: Limits = {
  active: 8,
  queue: 64,
  texts: 16,
  maxTokens: 4096,
  promptTokens: 32_768,
  tokenCharacters: 16,
  bodyBytes: 1024 * 1024,
  stallMs: 30_000,
  graceMs: 10_000,
};

/** The limits that a server keeps: `given` in place of the defaults. */
export function resolveLimits(given: Readonly<Record<string, unknown>>): Limits {
  for (const [name, value] of Object.entries(given)) {
    const names = Object.keys(LIMITS);
    if (!names.includes(name)) throw new Error(`Unknown limit ${JSON.stringify(name)}. Limits: ${names.join(', ')}.`);
    const least = name === 'queue' || name === 'graceMs' ? 0 : 1;
    if (!Number.isSafeInteger(value) || (value as number) < least)
      throw new Error(`Expected the limit ${name} to be an integer, at least ${least}, got ${JSON.stringify(value)}.`);
  }
  const limits = { ...LIMITS, ...given };
  // What never fits is refused as such, not told to come again.
  return { ...limits, texts: Math.min(limits.texts, limits.active + limits.queue) };
}
