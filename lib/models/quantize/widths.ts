import type { TensorSource } from '../../containers/container.js';
import type { NBits, QuantConfig } from '../../matrix/config.js';
import { HqqError } from '../../messages/errors.js';
import { plain } from '../../messages/text.js';
import { type ConversionRun, type ModelOptions, type ResolvedOptions, resolveOptions } from '../options.js';

/** A model in several forms, and the options of the weights of each. */
interface Forms {
  readonly source: TensorSource;
  readonly resolved: ResolvedOptions;
}

/** A model once for each of `widths`. @throws {HqqError} `ERR_INVALID_OPTION` for one whose output holds one form */
export function inWidths(
  source: TensorSource,
  options: QuantConfig & ModelOptions & ConversionRun,
  widths: readonly NBits[],
): Forms {
  const refuse = (message: string): never => {
    throw new HqqError('ERR_INVALID_OPTION', message);
  };
  if (options.nbits !== undefined) refuse('Expected nbits or widths, got both.');
  if (options.plan !== undefined) refuse('Expected a plan or widths, got both: a plan says the bits of each layer.');
  if (source.forms === undefined) {
    const message = `Expected one width of ${plain(source.path)}: several are forms of a transformers.js folder`;
    return refuse(`${message} (config.json, onnx/*.onnx), which it is not. Quantize it once for each.`);
  }
  // Each must be one that the format has.
  const [first] = widths.map((nbits) => resolveOptions({ ...options, nbits })) as [ResolvedOptions];
  const forms = source.forms(widths);
  const own = new Map<string, QuantConfig>();
  for (const site of forms.source.envelope.linears(forms.source.entries)) {
    if ('reason' in site || (site.embedding && options.embeddings !== undefined)) continue;
    const [, nbits] = [...forms.widths].find(([prefix]) => site.weight.name.startsWith(prefix))!;
    own.set(site.weight.name, { nbits: nbits as NBits });
  }
  return { source: forms.source, resolved: { ...first, own } };
}
