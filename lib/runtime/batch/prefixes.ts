import type { KvCache } from '../blocks/cache.js';
import { type Adapters, sameAdapters } from '../blocks/lora.js';
import type { TokenIds } from '../text/ids.js';

/** Positions below which reading them again is no more work than copying them. */
const LEAST = 16;

/**
 * Caches of a few positions that nobody begins with, kept for the next texts: memory that is new for every short text has the garbage
 * collector, who counts its bytes, stop everybody for tens of milliseconds.
 */
const SPARE = 4;

/** A cache, and the ids whose first `cache.length` it holds. */
interface Entry {
  cache: KvCache;
  ids: readonly number[];
  /** Texts that are copying of it. */
  readers: number;
}

/** A text's cache, and how many of its ids are in it already. */
export interface Begun {
  readonly cache: KvCache;
  readonly reused: number;
  /** Gives the cache back, which holds the text's first `cache.length` ids. */
  end(ids: readonly number[]): Promise<void>;
}

/** A cache that no other text is given. */
export function ownCache(cache: KvCache): Begun {
  return { cache, reused: 0, end: async () => {} };
}

/**
 * Caches of texts that have ended, so that one that begins alike (the next turn of a chat, the same system prompt) is not read again.
 * Bounded; the least recently used goes.
 */
export class Prefixes {
  readonly #most: number;
  readonly #make: () => KvCache;
  /** Of texts that have ended, the least recently used first. */
  #idle: Entry[] = [];
  /** Of texts that are written, as long as somebody reads them. */
  #busy: WeakRef<Entry>[] = [];
  /** Empty. */
  readonly #spare: KvCache[] = [];

  /** @param most Bytes that idle caches may take. 0: none is kept. */
  constructor(most: number, make: () => KvCache) {
    this.#most = most;
    this.#make = make;
  }

  /**
   * A cache for a text, with as much of it as an earlier one began with that has the same adapters; at least its last id is left to be
   * read.
   */
  async begin(ids: TokenIds, adapters: Adapters = []): Promise<Begun> {
    if (this.#most === 0) return ownCache(this.#makeFor(adapters));
    const { entry: found, common } = this.#longest(ids, adapters);
    let entry: Entry;
    const free = found?.readers === 0 && this.#idle.includes(found);
    if (found && free && 2 * common >= found.cache.length) {
      entry = found; // the same text, further on, or another end of it
      entry.cache.truncate(common);
      this.#idle = this.#idle.filter((other) => other !== entry);
    } else {
      entry = { cache: this.#makeFor(adapters), ids: [], readers: 0 };
      if (found) await this.#take(entry.cache, found, common);
    }
    entry.ids = Array.from(ids); // others may begin with it while it grows
    const own = new WeakRef(entry);
    this.#busy = [...this.#busy.filter((other) => other.deref() !== undefined), own];
    const end = async (whole: readonly number[]) => {
      entry.ids = whole;
      this.#busy = this.#busy.filter((other) => other !== own);
      if (entry.cache.length < LEAST) return this.#spend(entry); // nobody would begin with it
      if (entry.cache.neededBytes > this.#most) return; // all others would go for it, and then itself
      // A prompt that was given up had room made for all of it.
      if (4 * entry.cache.neededBytes <= entry.cache.bytes) entry.cache = await this.#copy(entry.cache);
      if (entry.cache.bytes > this.#most) return;
      this.#idle.push(entry);
      this.#shrink();
    };
    return { cache: entry.cache, reused: entry.cache.length, end };
  }

  #makeFor(adapters: Adapters): KvCache {
    const cache = this.#spare.pop() ?? this.#make();
    cache.expected = Infinity;
    cache.adapt(adapters);
    return cache;
  }

  async #take(cache: KvCache, from: Entry, length: number): Promise<void> {
    from.readers++;
    try {
      await cache.copyFrom(from.cache, length);
    } finally {
      from.readers--;
    }
  }

  /** Takes a cache that is no beginning any more. */
  #spend({ cache, readers }: Entry): void {
    if (readers > 0) return; // it must stay as it is
    cache.truncate(0);
    cache.adapt([]);
    if (cache.bytes > 0 && cache.bytes <= cache.neededBytes && this.#spare.length < SPARE) this.#spare.push(cache);
  }

  async #copy(cache: KvCache): Promise<KvCache> {
    const copy = this.#makeFor(cache.adapters);
    await copy.copyFrom(cache, cache.length);
    return copy;
  }

  #longest(ids: TokenIds, adapters: Adapters): { entry: Entry | undefined; common: number } {
    let [best, most]: [Entry | undefined, number] = [undefined, LEAST - 1];
    const busy = this.#busy.flatMap((entry) => entry.deref() ?? []);
    // Of equals the latest that need not be copied.
    for (const entry of [...[...this.#idle].reverse(), ...busy]) {
      if (!sameAdapters(entry.cache.adapters, adapters)) continue; // keys and values are its own
      const end = Math.min(ids.length - 1, entry.ids.length, entry.cache.length);
      let common = 0;
      while (common < end && ids[common] === entry.ids[common]) common++;
      if (common > most) [best, most] = [entry, common];
    }
    return { entry: best, common: most };
  }

  #shrink(): void {
    let bytes = this.#idle.reduce((sum, { cache }) => sum + cache.bytes, 0);
    while (bytes > this.#most) {
      const entry = this.#idle.shift()!;
      bytes -= entry.cache.bytes;
      this.#spend(entry);
    }
  }
}
