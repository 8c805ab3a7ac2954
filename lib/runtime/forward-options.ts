import type { AdapterChoice } from './adapters.js';
import type { Tap } from './blocks/tap.js';

/** How `forward` runs. */
export interface ForwardOptions {
  /**
   * `'last'`: the logits of the last position, `[vocabSize]`. `'all'`: of every one, `[ids.length, vocabSize]`.
   *
   * @default 'last'
   */
  readonly logits?: 'last' | 'all';
  /** Adapters that `ids` are read with, by name: those that the cache's positions were, where it holds some. @default none */
  readonly adapter?: AdapterChoice | undefined;
  /** Aborts the call: it rejects with the signal's reason, and the cache is as it was. */
  readonly signal?: AbortSignal | undefined;
  /** Is shown what goes into every linear layer, block after block, for all of `ids` or for some of them after the others. */
  readonly tap?: Tap | undefined;
}

/** How a call is ended early. */
export type Stoppable = Pick<ForwardOptions, 'signal'>;
