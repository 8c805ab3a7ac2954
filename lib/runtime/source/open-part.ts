import { Closing, notCloneable } from '../../messages/objects.js';
import { refuseSurplus } from '../../messages/surplus.js';
import type { Adapters } from '../blocks/lora.js';
import type { LanguageModelConfig } from '../config/model-config.js';
import type { Lifetime } from '../lifetime.js';
import type { Machine } from '../pass.js';
import type { Holding } from './holding.js';

const NOT_CLONEABLE = notCloneable('A part of a model, which stays in its thread: post its path, and open it there,');

/** What parts of a model share. */
export interface PartContext<Weights extends object> {
  readonly config: LanguageModelConfig;
  readonly machine: Machine;
  /** That all rows have. */
  readonly adapters: Adapters;
  readonly lifetime: Lifetime;
  /** The weights of a part, and of those that were made of it. */
  readonly holding: Holding<Weights>;
  /** What else is done when nothing computes with them any more. */
  readonly whenClosed: () => void;
}

/** A part of a model whose weights are in memory. */
export abstract class OpenPart extends Closing {
  /** @internal */
  readonly notCloneable = NOT_CLONEABLE;
  readonly #context: PartContext<object>;

  /** @internal */
  constructor(context: PartContext<object>) {
    super();
    this.#context = context;
  }

  /** Bytes that the weights take in memory; 0 once it is closed. */
  abstract readonly memoryUsage: number;

  /**
   * Lets the weights go when the calls under way are done; later ones are `ERR_CLOSED` errors. The next part does it, too. The memory
   * is the garbage collector's then; the next part takes what that has not collected yet.
   */
  async close(): Promise<void> {
    refuseSurplus(arguments.length, 0, 'close()');
    const { lifetime, holding, whenClosed } = this.#context;
    await lifetime.close(async () => {
      holding.letGo();
      whenClosed();
    });
  }
}
