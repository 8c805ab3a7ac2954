import { setImmediate as nextTurn } from 'node:timers/promises';
import { onAbort } from '../../compute/signal.js';
import { yieldIfDue } from '../../files/event-loop.js';
import { HqqError } from '../../messages/errors.js';
import type { KvCache } from '../blocks/cache.js';
import { compareAdapters } from '../blocks/lora.js';
import type { Part, ReadRun, TokensPass } from '../pass.js';
import type { TokenIds } from '../text/ids.js';

/** What steps are made of. */
export interface BatchReader {
  prepareTokens(caches: readonly KvCache[]): TokensPass;
  readParts(parts: readonly Part[], told: number, run: Pick<ReadRun, 'signal'>): Promise<Float32Array>;
}

/** Positions that a step reads of prompts while no text waits for its next token. */
const PROMPT_ROWS = 256;

/** Least of them while some do: with fewer, a prompt is read at the speed of memory. */
const LEAST_ROWS = 16;

/** Milliseconds that a step may be longer for the prompts that are read in it. */
const PIECE_MS = 100;

/** Compositions of a batch whose steps stay prepared. With more texts than a batch has room for, several alternate. */
const KEPT = 4;

/** A text that takes part. */
export interface Seat {
  /**
   * Reads `ids` after what `cache` holds. Gives the logits of the last one in an array that may be written to, and that is valid until the
   * text's next read. An abort takes effect at the next step.
   */
  read(ids: TokenIds, cache: KvCache, signal: AbortSignal | undefined): Promise<Float32Array>;
  /** Takes back what is asked for, and resolves when nothing is read any more. */
  leave(): Promise<void>;
}

/** Something to be read. */
interface Request {
  readonly seat: number;
  readonly ids: TokenIds;
  readonly cache: KvCache;
  readonly start: number;
  readonly resolve: (logits: Float32Array) => void;
  readonly reject: (reason: unknown) => void;
  /** Ends the watch over its signals. */
  readonly forget: () => void;
  /** Ids that were read. */
  done: number;
  /** Why nobody waits for it any more. */
  gone: { readonly reason: unknown } | undefined;
}

interface Step {
  /** Texts that wait for their next token, in the order of their seats. */
  readonly tokens: readonly Request[];
  /** Pieces of prompts: how many of their ids are read now. */
  readonly pieces: readonly { readonly request: Request; readonly rows: number }[];
  readonly controller: AbortController;
}

/**
 * Lets texts that are read at the same time share steps: the weights come from memory once for all of them. Texts join and leave
 * between steps. Prompts are read in pieces, so that nobody waits long. No text's bits depend on what else is in a step.
 */
export class Batcher {
  readonly #reader: BatchReader;
  readonly #maxBatch: number;
  /** First come, first served. */
  readonly #tokens: Request[] = [];
  readonly #prompts: Request[] = [];
  #prepared: { readonly caches: readonly KvCache[]; readonly memory: readonly object[]; readonly pass: TokensPass }[] =
    [];
  #step: Step | undefined;
  #running = false;
  /** Seats of the texts that were told of a step, and have neither asked for the next one nor left. */
  #missing = new Set<number>();
  /** Called when none is missing any more. */
  #go = () => {};
  #seats = 0;
  /** What a row of a prompt took in the last step that had some. */
  #rowMs = 0;

  /** @param maxBatch Most texts whose next tokens are read together. */
  constructor(reader: BatchReader, maxBatch: number) {
    this.#reader = reader;
    this.#maxBatch = maxBatch;
  }

  /** A place for a text. */
  enter(): Seat {
    const seat = this.#seats++;
    const own = new AbortController();
    const used = new Set<KvCache>();
    let under: Promise<unknown> = Promise.resolve();
    return {
      read: (ids, cache, signal) => {
        used.add(cache);
        const reading = cache.extend(ids.length, (start) => this.#ask(seat, ids, cache, start, [signal, own.signal]));
        under = reading.catch(() => {}); // whoever asked may have gone
        return reading;
      },
      leave: async () => {
        own.abort();
        this.#isHere(seat);
        await under;
        // What is prepared would keep a cache that nobody else has.
        this.#prepared = this.#prepared.filter(({ caches }) => !caches.some((cache) => used.has(cache)));
      },
    };
  }

  #ask(
    seat: number,
    ids: TokenIds,
    cache: KvCache,
    start: number,
    signals: readonly (AbortSignal | undefined)[],
  ): Promise<Float32Array> {
    for (const signal of signals) signal?.throwIfAborted();
    // A step would fail with it, and all of its texts.
    if (ids.length === 0) throw new HqqError('ERR_INVALID_ARGUMENT', 'Expected at least one token id, got none.');
    return new Promise<Float32Array>((resolve, reject) => {
      const watches = signals.map((signal) => onAbort(signal, () => this.#withdraw(request, signal!.reason)));
      const forget = () => watches.forEach((watch) => watch());
      const request: Request = { seat, ids, cache, start, resolve, reject, forget, done: 0, gone: undefined };
      (ids.length === 1 ? this.#tokens : this.#prompts).push(request);
      this.#isHere(seat);
      if (!this.#running) void this.#run();
    });
  }

  /** What waits goes at once; what is read goes with its step, which ends early when nobody in it is left. */
  #withdraw(request: Request, reason: unknown): void {
    request.gone ??= { reason };
    const step = this.#step;
    const members = step ? membersOf(step) : [];
    if (members.includes(request)) {
      if (members.every(({ gone }) => gone)) step!.controller.abort(reason);
      return;
    }
    for (const queue of [this.#tokens, this.#prompts]) {
      const at = queue.indexOf(request);
      if (at >= 0) queue.splice(at, 1);
    }
    settle(request, undefined, undefined);
  }

  async #run(): Promise<void> {
    this.#running = true;
    // Texts that begin at the same time ask within the turn.
    for (await nextTurn(); this.#tokens.length + this.#prompts.length > 0; await this.#gather()) {
      this.#step = this.#compose();
      const began = performance.now();
      let failure: { readonly error: unknown } | undefined;
      let logits: Float32Array | undefined;
      try {
        logits = await this.#read(this.#step);
      } catch (error) {
        failure = { error };
      }
      const { tokens, pieces } = this.#step;
      this.#step = undefined;
      if (pieces.length > 0)
        this.#rowMs = (performance.now() - began) / pieces.reduce((sum, { rows }) => sum + rows, 0);
      await this.#tell(tokens, pieces, logits, failure);
    }
    this.#running = false;
    this.#prepared = []; // it keeps caches alive
  }

  /**
   * Texts that were told of a step ask for the next within the turn: it begins when the last of them has, and what they do with their tokens
   * is done while it computes. Nobody waits for others longer than until the next turn.
   */
  #gather(): Promise<void> {
    if (this.#missing.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#go = resolve;
      setImmediate(resolve);
    });
  }

  #isHere(seat: number): void {
    if (this.#missing.delete(seat) && this.#missing.size === 0) this.#go();
  }

  #compose(): Step {
    // Those of the same adapters lie side by side: what these add is one product for all of them.
    const tokens = this.#tokens.splice(0, this.#maxBatch);
    tokens.sort((a, b) => compareAdapters(a.cache.adapters, b.cache.adapters) || a.seat - b.seat);
    const share = this.#rowMs > 0 ? Math.floor(PIECE_MS / this.#rowMs) : LEAST_ROWS;
    let room = tokens.length === 0 ? PROMPT_ROWS : Math.min(PROMPT_ROWS, Math.max(LEAST_ROWS, share));
    const pieces: { request: Request; rows: number }[] = [];
    while (room > 0 && pieces.length < this.#maxBatch) {
      const request = this.#prompts.shift();
      if (!request) break;
      const rows = Math.min(room, request.ids.length - request.done);
      pieces.push({ request, rows });
      room -= rows;
    }
    // Those that end come first: the logits of their last rows are what is told of them.
    const ends = ({ request, rows }: (typeof pieces)[number]) => request.done + rows === request.ids.length;
    pieces.sort((a, b) => Number(ends(b)) - Number(ends(a)));
    return { tokens, pieces, controller: new AbortController() };
  }

  #read({ tokens, pieces, controller: { signal } }: Step): Promise<Float32Array> {
    if (pieces.length === 0) {
      const [{ cache }] = tokens as [Request];
      const caches = tokens.map((request) => request.cache);
      const pass =
        caches.length > 1
          ? this.#passFor(caches)
          : cache.prepared(this.#reader, () => this.#reader.prepareTokens(caches));
      const starts = tokens.map(({ start }) => start);
      return pass.run(
        tokens.map(({ ids }) => ids[0]!),
        starts,
        { signal },
      );
    }
    const parts: Part[] = tokens.map(({ ids, cache, start }) => ({ ids, cache, start, length: start + 1 }));
    let told = tokens.length;
    for (const { request, rows } of pieces) {
      const { ids, cache, start, done } = request;
      parts.push({ ids: ids.slice(done, done + rows), cache, start: start + done, length: start + ids.length });
      if (done + rows === ids.length) told++;
    }
    return this.#reader.readParts(parts, told, { signal });
  }

  /** Steps of the same texts have the same arguments, until one of their caches has grown. */
  #passFor(caches: readonly KvCache[]): TokensPass {
    const memory = caches.map((cache) => cache.layer(0));
    const same = (other: readonly object[]) =>
      other.length === memory.length && other.every((layer, i) => layer === memory[i]);
    const known = this.#prepared.find((prepared) => same(prepared.memory));
    if (known) return known.pass;
    const pass = this.#reader.prepareTokens(caches);
    // What was prepared for a text whose cache has grown since is of no use, and holds the memory that it grew out of.
    const current = this.#prepared.filter((old) => old.caches.every((cache, i) => cache.layer(0) === old.memory[i]));
    this.#prepared = [{ caches, memory, pass }, ...current.slice(0, KEPT - 1)];
    return pass;
  }

  /** Texts choose their next tokens one after the other, and others have their turn between them. */
  async #tell(
    tokens: readonly Request[],
    pieces: Step['pieces'],
    logits: Float32Array | undefined,
    failure: { readonly error: unknown } | undefined,
  ): Promise<void> {
    for (const { request, rows } of pieces) request.done += rows;
    const ended = pieces.flatMap(({ request }) => (request.done === request.ids.length ? [request] : []));
    const told = [...tokens, ...ended];
    this.#missing = new Set(told.filter(({ gone }) => !gone).map(({ seat }) => seat));
    const width = (logits?.length ?? 0) / told.length;
    for (const [i, request] of told.entries()) {
      settle(request, failure, logits?.subarray(i * width, (i + 1) * width));
      await yieldIfDue();
    }
    for (const { request } of pieces) {
      if (ended.includes(request)) continue;
      if (request.gone || failure) settle(request, failure, undefined);
      else this.#prompts.push(request);
    }
  }
}

function settle(
  { gone, forget, resolve, reject }: Request,
  failure: { readonly error: unknown } | undefined,
  logits: Float32Array | undefined,
): void {
  forget();
  if (gone) reject(gone.reason);
  else if (failure) reject(failure.error);
  else resolve(logits!);
}

function membersOf({ tokens, pieces }: Step): readonly Request[] {
  return [...tokens, ...pieces.map(({ request }) => request)];
}
