import type { Step } from '../../../binding.js';
import { provide } from '../../backend/js/backend.js';
import { DENSE } from '../../backend/js/dense.js';
import { checkArray, checkObject } from '../../matrix/validate.js';
import { allocating } from '../../messages/allocating.js';
import { HqqError, show } from '../../messages/errors.js';
import { rejectUnknownOptions } from '../../messages/options-object.js';
import { suggestion } from '../../messages/suggestion.js';
import type { LoraOptions } from '../linear-options.js';

provide(DENSE);

const NO_BIAS = new Float32Array(0);

const invalid = (message: string) => new HqqError('ERR_INVALID_OPTION', message);

/** What one adapter adds: A `[rank, inFeatures]`, and B times the scale, `[outFeatures, rank]`. */
interface Factors {
  readonly rank: number;
  readonly down: Float32Array;
  readonly up: Float32Array;
}

/** Adapters of a layer, by name. Loaded with the first layer that has some: importing the package reads none of it. */
export class LoraSet {
  /** Bytes that their matrices take. */
  readonly bytes: number;
  readonly #factors: ReadonlyMap<string, Factors>;
  readonly #inFeatures: number;
  readonly #outFeatures: number;

  /** Checks and copies what is given. @throws {HqqError} `ERR_INVALID_ARGUMENT`, `ERR_INVALID_OPTION`, `ERR_OUT_OF_MEMORY` */
  constructor(given: NonNullable<LoraOptions['lora']>, [outFeatures, inFeatures]: readonly [number, number]) {
    this.#inFeatures = inFeatures;
    this.#outFeatures = outFeatures;
    checkObject(given, 'lora');
    this.#factors = new Map(Object.entries(given).map(([name, adapter]) => [name, this.#take(name, adapter)]));
    this.bytes = [...this.#factors.values()].reduce((sum, { down, up }) => sum + down.byteLength + up.byteLength, 0);
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

  #take(name: string, given: unknown): Factors {
    const [ins, outs] = [this.#inFeatures, this.#outFeatures];
    const where = `lora[${show(name)}]`;
    checkObject(given, where);
    rejectUnknownOptions(given as object, ['a', 'b', 'scale']);
    const { a, b, scale = 1 } = given as { a: Float32Array; b: Float32Array; scale?: number };
    const rank = a?.length / ins;
    if (!Number.isInteger(rank) || rank < 1) {
      const message = `Expected ${where}.a to be a Float32Array of rank rows of ${ins} numbers (inFeatures), got ${show(a)}.`;
      throw new HqqError('ERR_INVALID_ARGUMENT', message);
    }
    checkArray(a, `${where}.a`, 'Float32Array', rank * ins, `for ${rank} x ${ins}`);
    checkArray(b, `${where}.b`, 'Float32Array', outs * rank, `for ${outs} x ${rank}`);
    if (typeof scale !== 'number' || !Number.isFinite(scale))
      throw invalid(`Expected ${where}.scale to be a finite number, got ${show(scale)}.`);
    return allocating(where, () => ({ rank, down: a.slice(), up: b.map((number) => number * scale) }));
  }
}
