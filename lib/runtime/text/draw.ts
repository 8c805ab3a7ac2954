/** From which tokens is drawn. */
export interface DrawOptions {
  readonly temperature: number;
  /** The likeliest so many; 0: all. */
  readonly topK: number;
  /** Of these as many of the likeliest as have together this share of the mass, (0, 1]. */
  readonly topP: number;
  /** Logarithm of the probability, relative to the likeliest token's, below which none is drawn. */
  readonly cutoff: number;
}

/** Buckets of a unit of scaled logit. Only candidates of the buckets that decide are sorted: of 150,000 that would take 20 ms. */
const BUCKETS_PER_UNIT = 16;

/** `exp(-b / BUCKETS_PER_UNIT)` */
const POWERS = Float64Array.from({ length: 64 * BUCKETS_PER_UNIT }, (_, b) => Math.exp(-b / BUCKETS_PER_UNIT));

/** `exp(-distance)`, to 5e-12 of itself: within a bucket a few terms of the series will do, in a fraction of `Math.exp`'s time. */
function powerOf(distance: number, bucket: number): number {
  const x = bucket / BUCKETS_PER_UNIT - distance; // in (-1/16, 0]
  return POWERS[bucket]! * (1 + x * (1 + (x / 2) * (1 + (x / 3) * (1 + (x / 4) * (1 + (x / 5) * (1 + x / 6))))));
}

/** Draws tokens. Keeps memory from one draw to the next. */
export class Drawer {
  readonly #temperature: number;
  readonly #topK: number;
  readonly #topP: number;
  readonly #farthest: number;
  readonly #counts: Int32Array;
  readonly #masses: Float64Array;
  /** The bucket of each token; -1: none. */
  #places = new Int16Array(0);

  constructor({ temperature, topK, topP, cutoff }: DrawOptions) {
    this.#temperature = temperature;
    this.#topK = topK > 0 ? topK : Infinity;
    this.#topP = topP;
    this.#farthest = -cutoff;
    const buckets = Math.floor(this.#farthest * BUCKETS_PER_UNIT) + 1;
    this.#counts = new Int32Array(buckets);
    this.#masses = new Float64Array(buckets);
  }

  /**
   * The token that a uniform number in [0, 1) stands for, where candidates lie in the order of their likelihood: the lower id first of two that
   * are equal, so that it is the same on every engine.
   *
   * @param highest The greatest of the logits.
   */
  draw(logits: Float32Array, highest: number, random: number): number {
    this.#sort(logits, highest);
    const { full, last } = this.#bounds(logits, highest);
    const [masses, weight] = [this.#masses, (id: number) => this.#weight(logits[id]!, highest)];
    let mass = last.reduce((sum, id) => sum + weight(id), 0);
    for (let b = 0; b < full; b++) mass += masses[b]!;
    let rest = random * mass;
    let bucket = 0;
    for (; bucket < full && rest >= masses[bucket]!; bucket++) rest -= masses[bucket]!;
    const ids = bucket < full ? this.#idsOf(bucket, logits) : last;
    for (const id of ids) {
      rest -= weight(id);
      if (rest < 0) return id;
    }
    // Rounding has left a little of it.
    return ids.at(-1) ?? this.#idsOf(this.#lastFilled(full), logits).at(-1)!;
  }

  /** Finds the bucket of each token. */
  #sort(logits: Float32Array, highest: number): void {
    const [counts, masses, farthest, temperature] = [this.#counts, this.#masses, this.#farthest, this.#temperature];
    if (this.#places.length !== logits.length) this.#places = new Int16Array(logits.length);
    const places = this.#places;
    counts.fill(0);
    masses.fill(0);
    for (let id = 0; id < logits.length; id++) {
      const distance = (highest - logits[id]!) / temperature;
      if (distance <= farthest) {
        const bucket = Math.floor(distance * BUCKETS_PER_UNIT);
        places[id] = bucket;
        counts[bucket]!++;
        masses[bucket]! += powerOf(distance, bucket);
      } else places[id] = -1;
    }
  }

  /** How many buckets take part as a whole, and which tokens of the next one. */
  #bounds(logits: Float32Array, highest: number): { readonly full: number; readonly last: readonly number[] } {
    const [counts, masses] = [this.#counts, this.#masses];
    let [full, left, mass] = [0, this.#topK, 0];
    for (; full < counts.length && counts[full]! <= left; full++) {
      left -= counts[full]!;
      mass += masses[full]!;
    }
    const some = full < counts.length ? this.#idsOf(full, logits).slice(0, left) : [];
    if (this.#topP === 1) return { full, last: some };
    const weight = (id: number) => this.#weight(logits[id]!, highest);
    const enough = this.#topP * some.reduce((sum, id) => sum + weight(id), mass);
    let [bucket, sum] = [0, 0];
    for (; bucket < full && sum + masses[bucket]! < enough; bucket++) sum += masses[bucket]!;
    const last: number[] = [];
    for (const id of bucket < full ? this.#idsOf(bucket, logits) : some) {
      if (sum >= enough) break;
      last.push(id);
      sum += weight(id);
    }
    return { full: bucket, last };
  }

  #weight(logit: number, highest: number): number {
    const distance = (highest - logit) / this.#temperature;
    return powerOf(distance, Math.floor(distance * BUCKETS_PER_UNIT));
  }

  #lastFilled(full: number): number {
    let bucket = full - 1;
    while (bucket > 0 && this.#counts[bucket] === 0) bucket--;
    return bucket;
  }

  #idsOf(bucket: number, logits: Float32Array): number[] {
    const ids: number[] = [];
    const places = this.#places;
    for (let id = 0; id < places.length; id++) if (places[id] === bucket) ids.push(id);
    return ids.sort((a, b) => logits[b]! - logits[a]! || a - b);
  }
}
