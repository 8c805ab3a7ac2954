import { untilAborted } from '../../compute/signal.js';
import { HqqError } from '../../messages/errors.js';
import type { Seat } from '../batch/batcher.js';
import { type Begun, ownCache } from '../batch/prefixes.js';
import type { KvCache } from '../blocks/cache.js';
import { invalid, type ResolvedGenerateOptions } from './generate-options.js';
import { checkEncoded, type TokenIds } from './ids.js';
import { JsonText } from './json/json-text.js';
import { likelihoods, Sampler, type TokenLikelihoods } from './sampling.js';
import { StopWatch } from './stop.js';
import { TextStream } from './text-stream.js';
import type { TextTokenizer } from './tokenizer.js';

/** One token. Joined texts are the whole text: that of a token may come with a later one, which completes a character. */
export interface GeneratedToken {
  /** The token. */
  readonly id: number;
  /** Empty when there is no tokenizer. */
  readonly text: string;
  /** On the last token: why it is. `stop`: an end token or a `stop` text. `length`: `maxTokens` or `maxContext`. */
  readonly finish?: 'stop' | 'length';
  /** With `logprobs`: what the model itself says, before temperature and penalties. */
  readonly logprobs?: TokenLikelihoods;
  /** On the first token: how much was read before it. */
  readonly prompt?: PromptReport;
}

/** What became of a prompt. */
export interface PromptReport {
  /** Tokens of the prompt. */
  readonly tokens: number;
  /** How many of them were not read, since an earlier text began with them. */
  readonly reused: number;
}

/** What generation needs of a model. */
interface Generator {
  readonly vocabSize: number;
  readonly maxContext: number;
  tokenizer(): Promise<TextTokenizer>;
  /** The text of every token. */
  texts(): Promise<readonly string[]>;
  /** Lets a caller's cache have the text's adapters. @throws {HqqError} `ERR_INVALID_ARGUMENT` where it was read with others */
  adapt(cache: KvCache): void;
  /** A cache for a text, with as much of it as is known already. */
  begin(ids: TokenIds): Promise<Begun>;
  enter(): Seat;
}

/** @internal Use `model.generate`. */
export async function* generateTokens(
  model: Generator,
  endIds: readonly number[],
  makePrompt: () => string | TokenIds | Promise<TokenIds>,
  options: ResolvedGenerateOptions,
): AsyncGenerator<GeneratedToken, void, undefined> {
  const { maxTokens, signal, stop } = options;
  signal?.throwIfAborted();
  const prompt = await untilAborted(Promise.resolve(makePrompt()), signal);
  const json = options.format && new JsonText(options.format, await untilAborted(model.texts(), signal));
  const tokenizer = await untilAborted(tokenizerFor(model, prompt, stop), signal);
  const ids = typeof prompt === 'string' ? await untilAborted(tokenizer!.encode(prompt), signal) : Array.from(prompt);
  checkEncoded(ids, model.vocabSize);
  if (options.cache) model.adapt(options.cache);
  const before = options.cache?.length ?? 0;
  if (before > 0 && options.repetitionPenalty !== 1) {
    const message = `Expected no repetitionPenalty with a cache that holds ${before} tokens: which ones is not known`;
    throw invalid(`${message}. Leave it out, or give the whole text as the prompt, without the cache.`);
  }
  const most = Math.min(model.maxContext, options.cache?.maxPositions ?? Infinity); // another model's alike may be shorter
  if (before + ids.length >= most) {
    const held = before > 0 ? ` after the ${before} of the cache` : '';
    const message = `Expected a prompt of fewer tokens than the context of ${most}, got ${ids.length}${held}.`;
    throw new HqqError('ERR_INVALID_ARGUMENT', `${message} maxContext (--max-context) sets the limit.`);
  }
  const { cache, reused, end } = options.cache ? ownCache(options.cache) : await model.begin(ids);
  if (!options.cache) cache.expected = ids.length + maxTokens;
  const tokens: number[] = [];
  const sampler = new Sampler(options, ids);
  const stream = tokenizer && new TextStream(tokenizer, ids);
  const watch = new StopWatch(stop);
  const seat = model.enter();
  try {
    let reading = seat.read(ids.slice(reused), cache, signal);
    for (let count = 1; ; count++) {
      const logits = await reading;
      signal?.throwIfAborted();
      const tell = options.logprobs === undefined ? undefined : likelihoods(logits, options.logprobs);
      const id = sampler.next(logits, json);
      json?.push(id);
      tokens.push(id);
      const told = {
        ...(tell && { logprobs: tell(id) }),
        ...(count === 1 && { prompt: { tokens: ids.length, reused } }),
      };
      const ended = json ? json.done : endIds.includes(id);
      const last = count === maxTokens || cache.length === most;
      // It is read while its text is made and the caller has it: so a text is there when the next step begins.
      if (!ended && !last) {
        // What was read of a short text may be no beginning of a long one. A caller's cache is never emptied: an error says so.
        const again = !options.cache && !cache.goesOn(1);
        if (again) cache.truncate(0);
        reading = seat.read(again ? [...ids, ...tokens] : [id], cache, signal);
      }
      let text = watch.push(ended && !json ? '' : ((await stream?.push(id)) ?? ''));
      if (!watch.found && (ended || last))
        text += watch.push((await stream?.end()) ?? '') + (watch.found ? '' : watch.rest());
      if (ended || watch.found) {
        yield { id, text, ...told, finish: 'stop' };
        return;
      }
      if (last) {
        yield { id, text, ...told, finish: 'length' };
        return;
      }
      yield { id, text, ...told };
    }
  } finally {
    await seat.leave();
    // One more may have been read ahead.
    cache.truncate(Math.min(cache.length, before + ids.length + Math.max(0, tokens.length - 1)));
    await end([...ids, ...tokens]);
  }
}

/** Without one, ids that go in come out: text is only demanded where the caller gave some. */
async function tokenizerFor(
  model: Generator,
  prompt: string | TokenIds,
  stop: readonly string[],
): Promise<TextTokenizer | undefined> {
  try {
    return await model.tokenizer();
  } catch (error) {
    if (stop.length > 0) throw error;
    if (typeof prompt !== 'string') return undefined;
    if (!(error instanceof HqqError) || error.code !== 'ERR_DEPENDENCY') throw error;
    throw new HqqError(error.code, `${error.message} A prompt of token ids needs none.`, { cause: error });
  }
}
