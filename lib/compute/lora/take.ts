import { checkArray, checkObject } from '../../matrix/validate.js';
import { allocating } from '../../messages/allocating.js';
import { HqqError, show } from '../../messages/errors.js';
import { rejectUnknownOptions } from '../../messages/options-object.js';

/** What one adapter adds: A `[rank, inFeatures]`, and B times the scale, `[outFeatures, rank]`. */
export interface Factors {
  readonly rank: number;
  readonly down: Float32Array;
  readonly up: Float32Array;
}

/**
 * Checks and copies the adapters of a layer `[outFeatures, inFeatures]`, in the turn of the call that gives them: `set.ts`, which
 * multiplies with them, may have to be loaded first.
 *
 * @throws {HqqError} `ERR_INVALID_ARGUMENT`, `ERR_INVALID_OPTION`, `ERR_OUT_OF_MEMORY`
 */
export function takeLora(given: object, shape: readonly [number, number]): ReadonlyMap<string, Factors> {
  checkObject(given, 'lora');
  return new Map(Object.entries(given).map(([name, adapter]) => [name, take(`lora[${show(name)}]`, adapter, shape)]));
}

function take(where: string, given: object, [outs, ins]: readonly [number, number]): Factors {
  checkObject(given, where);
  rejectUnknownOptions(given, ['a', 'b', 'scale']);
  const { a, b, scale = 1 } = given as { a: Float32Array; b: Float32Array; scale?: number };
  const rank = a?.length / ins;
  const demand = (
    holds: boolean,
    expected: string,
    got: unknown,
    code: 'ERR_INVALID_ARGUMENT' | 'ERR_INVALID_OPTION' = 'ERR_INVALID_ARGUMENT',
  ) => {
    if (!holds) throw new HqqError(code, `Expected ${where}.${expected}, got ${show(got)}.`);
  };
  const endless = (number: number) => !Number.isFinite(number);
  demand(rank >= 1 && rank % 1 === 0, `a to be a Float32Array of rank rows of ${ins} numbers (inFeatures)`, a);
  checkArray(a, `${where}.a`, 'Float32Array', rank * ins, `for ${rank} x ${ins}`);
  checkArray(b, `${where}.b`, 'Float32Array', outs * rank, `for ${outs} x ${rank}`);
  demand(Number.isFinite(scale), 'scale to be a finite number', scale, 'ERR_INVALID_OPTION');
  const [down, up] = allocating(where, () => [a.slice(), b.map((number) => number * scale)]);
  demand(!down.some(endless), 'a to be finite', down.find(endless));
  demand(!up.some(endless), `b times ${scale} to be finite`, up.find(endless));
  return { rank, down, up };
}
