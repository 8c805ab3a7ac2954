import type { TensorSource } from '../../containers/container.js';
import { isAdopted, openSource, sourceFor } from '../../containers/list.js';
import type { QuantConfig } from '../../matrix/config.js';
import { HqqError } from '../../messages/errors.js';
import { plain } from '../../messages/text.js';
import { plural } from '../../messages/units.js';
import { SCHEMES, schemeNamed } from '../../schemes/list.js';
import type { StoredLayer } from '../../schemes/scheme.js';
import { MergedSource } from '../adapter/merged-source.js';
import { findLayers, schemesOf, tracesOf } from '../layers.js';
import type { ResolvedOptions } from '../options.js';
import { DecodedSource, ownConfigs } from './decoded-source.js';

/** What is to be quantized. */
export interface Input {
  readonly source: TensorSource;
  /** Its layers, where it is quantized already, and the options that these have, where none are asked for. */
  readonly layers?: readonly StoredLayer[];
  readonly configs?: Readonly<Record<string, QuantConfig>>;
  /** What people should know of how it was opened. */
  readonly notes?: readonly string[];
}

/**
 * Opens a model of floats; or, where another format is asked for, what HQQ has quantized as the numbers that it is; or, where that is
 * asked for (`requantize`), what is quantized in the way of the output.
 *
 * @throws {HqqError} as `openSource`; `ERR_CHECKPOINT_CONTENT` for codes that would be lost unasked
 */
export async function openInput(input: string, output: string, resolved: ResolvedOptions): Promise<Input> {
  const source = await openSource(input, output);
  try {
    return await inputOf(source, output, resolved);
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function inputOf(source: TensorSource, output: string, { model, run, asked }: ResolvedOptions): Promise<Input> {
  if (model.adapter !== undefined) {
    const { adapter, importance } = model;
    const isRead = importance !== 'none' && !(importance === 'auto' && model.tune !== false);
    return withAdapter(source, output, { adapter, isRead }, run.signal);
  }
  const hqq = schemeNamed('hqq');
  const anew = asked.nbits !== undefined || model.plan !== undefined;
  if (!hqq.containers.includes(source.container)) {
    const chosen = schemesOf(source).some(({ types }) => types);
    if (!model.requantize || !chosen || tracesOf(source) === undefined)
      return { source: await sourceFor(source, output) };
    const layers = await findLayers(source, run.signal);
    return { source: new DecodedSource(source, layers), layers };
  }
  const adopted = isAdopted(source, output);
  const scheme = model.to === undefined ? undefined : SCHEMES.find(({ name }) => name === model.to);
  const other = scheme !== undefined && scheme !== hqq && scheme.containers.includes(source.container);
  if (!(adopted || other) || hqq.traces(source) === undefined) return { source: await sourceFor(source, output) };
  const layers = await hqq.find(source, run.signal);
  if (adopted) {
    const keeps = !model.requantize;
    if (keeps && (anew || model.type !== undefined)) throw losesCodes(source.path);
    return { source: await sourceFor(new DecodedSource(source, layers, keeps), output), layers };
  }
  const given = anew || asked.groupSize !== undefined;
  return { source: new DecodedSource(source, layers), layers, ...(given ? {} : { configs: ownConfigs(layers) }) };
}

/** A model of floats that an adapter is merged into. */
async function withAdapter(
  source: TensorSource,
  output: string,
  { adapter, isRead }: { readonly adapter: string; readonly isRead: boolean },
  signal: AbortSignal | undefined,
): Promise<Input> {
  const hqq = schemeNamed('hqq');
  if (!hqq.containers.includes(source.container) || tracesOf(source) !== undefined) {
    const message = `Expected ${plain(source.path)} to be a safetensors model of floats, which an adapter is merged into (adapter, --adapter)`;
    const got = hqq.containers.includes(source.container) ? 'quantized already' : `a model of ${source.container}`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}, got one that is ${got}.`);
  }
  const merged = await MergedSource.over(source, adapter, signal);
  const weighed = isRead ? ' Importance is that of the model without it.' : '';
  const notes = [`The adapter in ${plain(adapter)} was merged into ${plural(merged.count, 'tensor')}.${weighed}`];
  return { source: await sourceFor(merged, output), notes };
}

function losesCodes(path: string): HqqError {
  const message = `${plain(path)} is quantized with HQQ already. Without a type (--type) and bits (--nbits) its codes are kept as they are`;
  return new HqqError(
    'ERR_CHECKPOINT_CONTENT',
    `${message}; to fit them anew, whose errors add up, say so (requantize, --requantize).`,
  );
}
