import { onAbort } from '../../compute/signal.js';
import { Scratch } from '../../containers/scratch.js';
import type { ShardPlan } from './plan.js';
import { PROBE_SLOTS, probeShard } from './probe-shard.js';
import type { ShardRun } from './quantize-shard.js';

/**
 * Asks the weights of each shard what they decide, of the next one while one is written: a disk that is slower than the cores is
 * then kept busy, and what was read for the question is still in the system's memory when it is read to be quantized.
 */
export class ProbesAhead {
  readonly #shards: readonly ShardPlan[];
  readonly #run: ShardRun;
  /** Of the shard ahead, beside those of the run. */
  readonly #slots = Array.from({ length: PROBE_SLOTS }, () => new Scratch());
  readonly #stop = new AbortController();
  readonly #release: () => void;
  #ahead: { readonly shard: ShardPlan; readonly answer: Promise<ShardPlan> } | undefined;

  constructor(shards: readonly ShardPlan[], run: ShardRun) {
    this.#shards = shards;
    this.#release = onAbort(run.signal, () => this.#stop.abort(run.signal?.reason));
    this.#run = { ...run, signal: this.#stop.signal };
  }

  /** The shard as its weights have it. To be called when no other one is written. */
  async settle(shard: ShardPlan): Promise<ShardPlan> {
    const answer = this.#ahead?.shard === shard ? this.#ahead.answer : probeShard(shard, this.#run);
    const settled = await answer;
    const next = this.#shards[this.#shards.indexOf(shard) + 1];
    this.#ahead = next && { shard: next, answer: probeShard(next, { ...this.#run, slots: this.#slots }) };
    this.#ahead?.answer.catch(() => {}); // who asks for it is told
    return settled;
  }

  /** Stops, and waits until nothing is read any more. */
  async close(): Promise<void> {
    this.#release();
    this.#stop.abort();
    await this.#ahead?.answer.catch(() => {});
  }
}
