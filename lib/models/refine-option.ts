import type { QuantConfig } from '../matrix/config.js';
import type { Option } from '../matrix/option.js';
import { HqqError, show } from '../messages/errors.js';
import { AUTO_OPTIONS } from '../solvers/auto.js';
import type { ImportanceSource } from './importance-options.js';
import { checkTune, TUNE_OPTION, type TuneOption, type TuneOptions } from './tuning/option.js';

/** The options of a model that refines its codes, of one whose blocks are quantized one after the other, and of one that is tuned. */
export interface RefineOption extends TuneOption {
  /**
   * Error feedback: what rounding the weights of one group of input features does to a layer's output is met by the
   * groups after it, as far as their inputs go together (the block Cholesky factorization of the sums of products of inputs, what is off
   * the diagonal shrunk to 0.4). Needs what goes in together: `importance` `'auto'` is `'own'` then, and `'random'`, `'text:<file>'` and
   * `{ text }` are the others that there are. Of an ONNX model, whose graph onnxruntime-node runs, it is `'random'`, and `{ inputs }` is another.
   * Only layers whose groups are parts of rows have it (`axis` 1, several groups a row); the rest stay as they
   * are without. One block of the model and three square matrices of a layer's inputs are in memory at a time (of an ONNX model one more for
   * each set of weights that the same values go into, until they have all been used for the last time); weights that wait lie in a
   * file beside the output, as large as the weights of the original are. Errors in the report are those of what was rounded:
   * `compareModels` gives those to the original, which are larger than without, where what the model computes is nearer.
   *
   * @default false
   * @throws {HqqError} `ERR_INVALID_OPTION` with another `importance`, an option that is `'auto'`, `prune`, or `to` a format that is neither HQQ's nor ONNX;
   *   `ERR_CHECKPOINT_CONTENT` for a model that does not run; `ERR_DEPENDENCY` without onnxruntime-node where it has to run it.
   */
  readonly refine?: boolean | undefined;
  /**
   * Finds importance of each block when those before it have been quantized: what goes into its layers is what goes in there. Each block is
   * quantized once for that and once for the output. Of the models that were tried it is no better (`docs/quality.md`), and what is saved
   * for later (`hqq calibrate`) is that of the floating-point model.
   *
   * @default false
   * @throws {HqqError} `ERR_INVALID_OPTION` with `refine`, `importance` `'none'` or saved statistics, which nothing is read for, or `to` a
   *   format that is no HQQ's; `ERR_CHECKPOINT_CONTENT` for a model that `hqq/runtime` does not run, or an encoder.
   */
  readonly sequential?: boolean | undefined;
}

/** The same with every default filled in. */
export interface ResolvedRefine {
  readonly refine: boolean;
  readonly sequential: boolean;
  readonly tune: boolean | TuneOptions;
}

const BOOLEAN = { default: false, expected: 'true or false', accepts: (value: unknown) => typeof value === 'boolean' };

/** In the shape of `OPTIONS` of one matrix. */
export const REFINE_OPTIONS: { readonly [K in keyof ResolvedRefine]: Option<ResolvedRefine[K]> } = {
  refine: {
    ...BOOLEAN,
    help: 'meet the errors of each group in the next ones: the model reads text that it writes itself, of ONNX random tokens',
  },
  sequential: { ...BOOLEAN, help: 'find the importance of each block when those before it have been quantized' },
  tune: TUNE_OPTION,
};

/**
 * Refuses what error feedback cannot have: statistics alone do not say what inputs have in common. Nor can what is read block by block have statistics that are there. Options that are chosen for a whole matrix are not known when its first group is rounded.
 *
 * @param configs all that matrices are asked to be quantized with
 * @throws {HqqError} `ERR_INVALID_OPTION`
 */
export function checkRefine(
  model: ResolvedRefine & {
    readonly importance: ImportanceSource;
    readonly to: string | undefined;
    readonly adapter: string | undefined;
  },
  configs: readonly QuantConfig[],
): void {
  checkTune(model, configs);
  const { refine, sequential, importance, to } = model;
  if (!refine && !sequential) return;
  const refuse = (expected: string, got: unknown): never => {
    const name = refine ? 'refine' : 'sequential';
    throw new HqqError('ERR_INVALID_OPTION', `Expected ${expected} with ${name}, got ${show(got)}.`);
  };
  if (!refine) {
    const isRead = typeof importance !== 'string' || /^(auto|random|own|text:.*)$/s.test(importance);
    if (!isRead) refuse('importance to be auto, random, own or text:<file>', importance);
    if (to !== undefined && to !== 'hqq') refuse('no other format than hqq', to);
    for (const { prune } of configs) if (prune) refuse('nothing to be pruned (prune)', prune);
    return;
  }
  if (sequential) refuse('sequential to be false', sequential);
  const reads = importance === 'auto' || importance === 'own' || importance === 'random';
  if (!reads && typeof importance === 'string' && !importance.startsWith('text:'))
    refuse('importance to be auto, random, own or text:<file>', importance);
  if (to !== undefined && to !== 'hqq' && to !== 'onnx') refuse('no other format than hqq and onnx', to);
  for (const config of configs) {
    for (const name of AUTO_OPTIONS) if (config[name] === 'auto') refuse(`${name} to be a number`, 'auto');
    if (config.prune)
      refuse('nothing to be pruned (prune), since weights that go are to be met by others', config.prune);
  }
}
