import type { Step } from '../../../binding.js';
import { provide } from '../../backend/js/backend.js';
import { DENSE } from '../../backend/js/dense.js';
import { allocating } from '../../messages/allocating.js';
import { HqqError, show } from '../../messages/errors.js';
import { suggestion } from '../../messages/suggestion.js';
import type { Factors } from './take.js';

provide(DENSE);

const NO_BIAS = new Float32Array(0);

const invalid = (message: string) => new HqqError('ERR_INVALID_OPTION', message);

/** Adapters of a layer, by name. Loaded with the first layer that has some: importing the package reads none of it. */
export class LoraSet {
  /** Bytes that their matrices take. */
  readonly bytes: number;
  readonly #factors: ReadonlyMap<string, Factors>;
  readonly #outFeatures: number;

  /** @param factors What `takeLora` gives for the same shape: it is kept. */
  constructor(factors: ReadonlyMap<string, Factors>, [outFeatures]: readonly [number, number]) {
    this.#outFeatures = outFeatures;
    this.#factors = factors;
    this.bytes = [...factors.values()].reduce((sum, { down, up }) => sum + down.byteLength + up.byteLength, 0);
  }

  /**
   * Steps that add what the chosen adapters make of `x`, `[batch, inFeatures]`, to `out`: of several in the order in which the layer was given
   * them.
   *
   * @throws {HqqError} `ERR_INVALID_OPTION` for names that there are not, `ERR_OUT_OF_MEMORY`
   */
  steps(choice: string | readonly string[], x: Float32Array, out: Float32Array, threads: number): Step[] {
    const chosen = this.#choose(choice);
    const batch = out.length / this.#outFeatures;
    const most = Math.max(0, ...chosen.map(({ rank }) => rank));
    const [inner, change] = allocating('what an adapter adds', () => [
      new Float32Array(batch * most),
      new Float32Array(chosen.length > 0 ? out.length : 0),
    ]);
    const product = (ins: Float32Array, weights: Float32Array, outs: Float32Array): Step => ({
      operation: 'denseLinear',
      args: {
        ...{ batch, inFeatures: ins.length / batch, outFeatures: outs.length / batch },
        ...{ x: ins, weights, bias: NO_BIAS, out: outs, threads },
      },
    });
    return chosen.flatMap(({ rank, down, up }): Step[] => {
      const narrow = inner.subarray(0, batch * rank);
      return [
        product(x, down, narrow),
        product(narrow, up, change),
        { operation: 'add', args: { x: change, to: out, threads } },
      ];
    });
  }

  #choose(choice: string | readonly string[]): readonly Factors[] {
    const asked = typeof choice === 'string' ? [choice] : choice;
    if (!Array.isArray(asked) || new Set(asked).size < asked.length)
      throw invalid(`Expected lora to be a name or a list of different names, got ${show(choice)}.`);
    const names = [...this.#factors.keys()];
    const unknown = asked.find((name) => !this.#factors.has(name));
    if (unknown === undefined) return names.flatMap((name) => (asked.includes(name) ? [this.#factors.get(name)!] : []));
    const near = typeof unknown === 'string' ? suggestion(unknown, names) : '';
    throw invalid(
      `Expected lora to be among ${names.map((name) => show(name)).join(', ')}, got ${show(unknown)}.${near}`,
    );
  }
}
