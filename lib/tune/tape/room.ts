import { largeFloats } from '../../compute/memory.js';
import { allocating } from '../../messages/allocating.js';
import { Frame } from '../../runtime/blocks/frame.js';
import type { LanguageModelConfig } from '../../runtime/config/model-config.js';
import type { Floats } from './spans.js';

/** Memory of tapes, for one after the other: what the last one left is in it. */
export class Room {
  readonly #free = new Map<number, Floats[]>();
  #taken: Floats[] = [];
  #frame: { readonly rows: number; readonly frame: Frame } | undefined;

  /** An array of anything. */
  take(count: number): Floats {
    const array = this.#free.get(count)?.pop() ?? floats(count);
    this.#taken.push(array);
    return array;
  }

  /** What a block computes in. */
  frame(config: LanguageModelConfig, rows: number): Frame {
    if (this.#frame?.rows !== rows) this.#frame = { rows, frame: new Frame(config, rows) };
    return this.#frame.frame;
  }

  /** Nobody uses any more what was taken. */
  free(): void {
    for (const array of this.#taken) {
      const alike = this.#free.get(array.length);
      if (alike) alike.push(array);
      else this.#free.set(array.length, [array]);
    }
    this.#taken = [];
  }
}

function floats(count: number): Floats {
  return allocating('the activations and gradients of a block', () => largeFloats(count));
}
