import type { TensorSource } from '../../containers/container.js';
import type { QuantConfig } from '../../matrix/config.js';
import { HqqError } from '../../messages/errors.js';
import { schemeFor } from '../../schemes/list.js';
import { checkPlanFits, type NamedPlan, readBitPlan, withPlan } from '../bit-plan.js';
import { type ConversionRun, type ModelOptions, type ResolvedOptions, resolveOptions } from '../options.js';
import { ownError } from '../select/select.js';
import { type Input, openInput } from './open-input.js';
import { type ModelPlan, planModel } from './plan.js';
import { inWidths } from './widths.js';

/** A model that is about to be quantized: opened, its options settled, every shard planned. Who has it closes its source. */
export interface Prepared extends Input {
  readonly resolved: ResolvedOptions;
  readonly plan: ModelPlan;
}

/**
 * All of `quantizeModel` before a weight is read. The same input and options give the same plan, wherever the model lies.
 *
 * @throws {HqqError} as `quantizeModel` does before it reads a weight
 */
export async function prepare(
  input: string,
  output: string,
  options: QuantConfig & ModelOptions & ConversionRun,
): Promise<Prepared> {
  const { own, settled } = resolveBefore(options);
  own.run.signal?.throwIfAborted();
  const bits = own.model.plan === undefined ? undefined : await readBitPlan(own.model.plan);
  const opened = await openInput(input, output, own);
  const { configs } = opened;
  let { source } = opened;
  try {
    const asked = withScheme(options, own, source);
    const forms = own.model.widths && inWidths(source, asked, own.model.widths);
    if (forms) source = forms.source;
    const resolved = bits
      ? resolvePlanned(asked, bits)
      : forms
        ? forms.resolved
        : configs
          ? withOwn(asked, configs)
          : asked === options && settled
            ? own
            : resolveOptions(asked);
    const plan = await planModel(source, resolved);
    if (bits) await checkPlanFits(bits, source, plan.digest, own.run.signal);
    return { ...opened, source, resolved, plan };
  } catch (error) {
    await source.close();
    throw error;
  }
}

/**
 * Options before it is known what the input becomes. Zeros that pruning cannot have are no error yet where nobody asked for them: formats
 * have defaults of their own.
 */
function resolveBefore(options: QuantConfig & ModelOptions & ConversionRun): {
  readonly own: ResolvedOptions;
  readonly settled: boolean;
} {
  try {
    return { own: resolveOptions(options), settled: true };
  } catch (error) {
    const { prune, zeroPoint, to, for: engine } = options;
    const asked = [zeroPoint, to, engine].some((given) => given !== undefined);
    if (!(error instanceof HqqError) || prune === undefined || asked) throw error;
    try {
      return { own: resolveOptions({ ...options, zeroPoint: 'integer' }), settled: false };
    } catch (other) {
      throw other instanceof HqqError ? error : other;
    }
  }
}

/** Options with the format that the input becomes where none is asked for: it may have defaults of its own. */
function withScheme(
  options: QuantConfig & ModelOptions & ConversionRun,
  { model }: ResolvedOptions,
  source: TensorSource,
): QuantConfig & ModelOptions & ConversionRun {
  const scheme = schemeFor(source, model.to);
  return model.to === undefined && scheme.defaults !== undefined ? { ...options, to: scheme.name } : options;
}

/** Options with those that each layer has already, under what is asked of it; of the whole model, what all have. */
function withOwn(
  options: QuantConfig & ModelOptions & ConversionRun,
  own: Readonly<Record<string, QuantConfig>>,
): ResolvedOptions {
  const [first, ...others] = Object.values(own);
  const alike = others.every((config) => JSON.stringify(config) === JSON.stringify(first));
  try {
    return { ...resolveOptions(alike ? { ...options, ...first } : options), own: new Map(Object.entries(own)) };
  } catch (error) {
    throw ownError(error, 'The model'); // what was asked for has been resolved
  }
}

/** Options of a call with those of a plan among them: an error that they bring says which plan. */
function resolvePlanned(options: QuantConfig & ModelOptions & ConversionRun, bits: NamedPlan): ResolvedOptions {
  try {
    return resolveOptions(withPlan(options, bits.plan));
  } catch (error) {
    if (!(error instanceof HqqError)) throw error;
    throw new HqqError(error.code, `${bits.name}: ${error.message}`);
  }
}
