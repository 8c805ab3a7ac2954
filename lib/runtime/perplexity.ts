import { checkSignal } from '../compute/signal.js';
import { yieldIfDue } from '../files/event-loop.js';
import { HqqError, show } from '../messages/errors.js';
import { rejectUnknownOptions } from '../messages/options-object.js';
import type { AdapterChoice } from './adapters.js';
import type { KvCache } from './blocks/cache.js';
import type { Adapters } from './blocks/lora.js';
import type { Decoder } from './decoder.js';
import { MAX_CONTEXT } from './load-options.js';
import type { ReadRun } from './pass.js';
import { checkIds, type TokenIds } from './text/ids.js';

/** Rows whose logits are in memory at once: a vocabulary may have 150,000 tokens. */
const LOGIT_ROWS = 16;

/** How `perplexity` runs. */
export interface PerplexityOptions {
  /**
   * Tokens of a window, 1 to `maxContext`. A window of n scores n tokens, the last of which is read but to be compared: n + 1 ids.
   *
   * @default 128
   */
  readonly window?: number | undefined;
  /** Adapters that the text is read with, by name. @default none */
  readonly adapter?: AdapterChoice | undefined;
  /** Aborts the call: it rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Called after every window with the tokens that are predicted, and all. An error that it throws ends the measurement. */
  readonly onProgress?: ((progress: { readonly tokensDone: number; readonly tokensTotal: number }) => void) | undefined;
}

/** What `perplexity` measures. */
export interface Perplexity {
  /** `exp(nll)` */
  readonly perplexity: number;
  /** Mean negative log likelihood of a token, in nats. */
  readonly nll: number;
  /** Tokens that were predicted. */
  readonly tokens: number;
}

/** Tokens of a window where nothing is said. */
export const WINDOW = 128;

/**
 * @throws {HqqError} unless a window of so many tokens fits a text: `ERR_INVALID_OPTION` for what fits no model,
 *   `ERR_INVALID_ARGUMENT` for what this one's context is too short for.
 */
export function checkWindow(window: number, maxContext: number): void {
  const isSize = Number.isSafeInteger(window) && window >= 1 && window <= MAX_CONTEXT;
  if (isSize && window <= maxContext) return;
  const message = `Expected window (--window) to be an integer in [1, ${maxContext}], got ${show(window)}`;
  const code = isSize ? 'ERR_INVALID_ARGUMENT' : 'ERR_INVALID_OPTION';
  throw new HqqError(code, `${message}. maxContext (--max-context) sets the limit.`);
}

/** As `LanguageModel.perplexity` says. */
export async function measurePerplexity(
  decoder: Decoder,
  maxContext: number,
  ids: TokenIds,
  options: PerplexityOptions,
  choose: (adapter: AdapterChoice | undefined) => Adapters,
): Promise<Perplexity> {
  if (typeof options !== 'object' || options === null) {
    throw new HqqError('ERR_INVALID_OPTION', `Expected the options to be an object, got ${show(options)}.`);
  }
  rejectUnknownOptions(options, ['window', 'adapter', 'signal', 'onProgress'] satisfies (keyof PerplexityOptions)[]);
  const { window = WINDOW, adapter, signal, onProgress } = options;
  checkSignal(signal);
  checkIds(ids, decoder.config.vocabSize);
  checkWindow(window, maxContext);
  const adapters = choose(adapter);
  const windows = Math.floor((ids.length - 1) / window);
  if (windows === 0) {
    throw new HqqError(
      'ERR_INVALID_ARGUMENT',
      `Expected at least ${window + 1} tokens for a window of ${window}, got ${ids.length}. Give a longer text or a smaller window.`,
    );
  }
  const cache = decoder.createCache(maxContext);
  cache.adapt(adapters);
  const tokens = windows * window;
  let sum = 0;
  for (let w = 0; w < windows; w++) {
    cache.truncate(0);
    sum += await surprise(decoder, ids.slice(w * window, (w + 1) * window + 1), cache, { signal });
    onProgress?.({ tokensDone: (w + 1) * window, tokensTotal: tokens });
  }
  return { perplexity: Math.exp(sum / tokens), nll: sum / tokens, tokens };
}

/** Sum of the negative log likelihoods of all tokens but the first. */
async function surprise(decoder: Decoder, ids: TokenIds, cache: KvCache, run: ReadRun): Promise<number> {
  const { vocabSize } = decoder.config;
  const count = ids.length - 1;
  return cache.extend(count, async (start) => {
    let sum = 0;
    for (const [at, end] of decoder.chunks(count)) {
      const pass = decoder.pass([{ ids: ids.slice(at, end), cache, start: start + at, length: start + count }]);
      await pass.run(run);
      for (let row = 0; row < pass.count; row += LOGIT_ROWS) {
        const last = Math.min(row + LOGIT_ROWS, pass.count);
        const logits = await pass.logits(row, last, run);
        for (let r = row; r < last; r++) {
          const of = logits.subarray((r - row) * vocabSize, (r - row + 1) * vocabSize);
          sum += logSumExp(of) - of[ids[at + r + 1]!]!;
          await yieldIfDue();
        }
      }
    }
    return sum;
  });
}

function logSumExp(logits: Float32Array): number {
  let highest = -Infinity;
  for (let i = 0; i < logits.length; i++) if (logits[i]! > highest) highest = logits[i]!;
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i]! - highest);
  return highest + Math.log(sum);
}
