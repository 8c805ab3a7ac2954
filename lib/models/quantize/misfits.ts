import type { LinearSite, OtherTensor } from '../../containers/container.js';
import { kindsOf, layerOf } from '../../containers/names.js';
import type { Misfit } from '../../matrix/fit.js';
import { HqqError } from '../../messages/errors.js';
import { quote } from '../../messages/text.js';
import { formatCount } from '../../messages/units.js';
import { notLoaded } from '../../schemes/engines.js';
import { SCHEMES } from '../../schemes/list.js';
import type { PlannedLayer, Refused, Scheme } from '../../schemes/scheme.js';
import { anyNumber, compileGlob } from '../select/globs.js';

// What was asked for and cannot be.

/** Of embeddings, where the output cannot hold them quantized. */
export function embeddingsError({ title, containers }: Scheme): HqqError {
  // Of those that the same model could become.
  const like = SCHEMES.filter((scheme) => scheme.containers.some((name) => containers.includes(name)));
  const able = like.filter(({ embeddings }) => embeddings).map((scheme) => scheme.title);
  const which = able.length === 0 ? 'No format can.' : `Formats that can: ${able.join(', ')}.`;
  const message = `Expected no embeddings (--embeddings) for ${title}, which cannot hold them quantized`;
  return new HqqError('ERR_INVALID_OPTION', `${message}. ${which}`);
}

/** Of a level of accuracy, where whoever loads the output has none. */
export function levelError({ title }: Scheme): HqqError {
  const message = `Expected no accuracyLevel (--accuracy-level) for ${title}`;
  return new HqqError('ERR_INVALID_OPTION', `${message}, which has none. ONNX files have levels.`);
}

/** Of a type, where the output has but one. */
export function typeError({ title }: Scheme, type: string): HqqError {
  const message = `Expected no type (--type) for ${title}, which has one, got ${type}`;
  return new HqqError('ERR_INVALID_OPTION', `${message}. GGUF files have types.`);
}

/** Of what is read block by block, where the runtime does not compute with the output's groups meanwhile. */
export function sequentialError({ title }: Scheme): HqqError {
  const message = `Expected importance to be found of the floating-point model (no --sequential) for ${title}`;
  return new HqqError('ERR_INVALID_OPTION', `${message}: only HQQ's groups are read meanwhile.`);
}

/** Of error feedback, where the output's groups are not those whose errors are fed back. */
export function refineError({ title }: Scheme): HqqError {
  const message = `Expected no error feedback (--refine) for ${title}: only HQQ's groups and those of MatMulNBits have it`;
  return new HqqError('ERR_INVALID_OPTION', `${message}. Without --refine, --importance own reads the same text.`);
}

/** What was asked for is kept or refused: a layer that is left as it is would be found out by the size of the output. */
function misfitError(misfits: readonly (readonly [LinearSite, Misfit])[]): HqqError {
  const [{ name }, { asked, sizes }] = misfits[0]!;
  const like = misfits.filter(([, misfit]) => misfit.asked === asked);
  const names = like.slice(0, 3).map(([{ weight, shape }]) => `${quote(weight.name)} (${shape.join(' x ')})`);
  const more = like.length > names.length ? ` and ${like.length - names.length} more` : '';
  const size = sizes[0]!;
  return new HqqError(
    'ERR_GROUP_SIZE',
    `Expected groupSize (--group-size) to divide the weights of every layer that it was asked for, got ${asked} for ${names.join(', ')}` +
      `${more}. Leave it out, and such layers take a size that fits; or give them one of their own, as in ` +
      `overrides: { ${quote(name)}: { groupSize: ${size} } } (--override ${quote(`${name}:group-size=${size}`)}); or exclude them (exclude, --exclude).`,
  );
}

/** Patterns that a message gives. */
const MAX_GLOBS = 4;

/** Of layers that whoever loads the format would fill with something else; the way out is to leave them, or another format. */
function refusedError({ title, name }: Scheme, refused: readonly (readonly [LinearSite, Refused])[]): HqqError {
  const reason = refused[0]![1].refused;
  const names = [...new Set(refused.map(([{ weight, partOf }]) => partOf?.[0] ?? weight.name))];
  const [first, ...others] = names;
  const usual = '*.experts.*';
  const isUsual = names.every(compileGlob(usual).matches);
  const globs = isUsual ? [usual] : [...new Set(names.map((tensor) => anyNumber(layerOf(tensor))))];
  const ways = globs.slice(0, MAX_GLOBS).map((glob) => `--exclude ${quote(glob)}`);
  if (globs.length > MAX_GLOBS) ways.push(`and ${formatCount(globs.length - MAX_GLOBS)} more`);
  const more = others.length === 0 ? '' : ` and ${formatCount(others.length)} more`;
  return new HqqError(
    'ERR_CHECKPOINT_CONTENT',
    `Expected layers that can be quantized for ${title}, got ${quote(first!)}${more}: ${reason}. Leave them as they are ` +
      `(exclude, ${ways.join(' ')}), or write a format that holds them (instead of --to ${name}, --to compressed-tensors).`,
  );
}

/** @throws {HqqError} `ERR_GROUP_SIZE`; `ERR_CHECKPOINT_CONTENT` for what may neither be quantized nor stay */
export function rejectMisfits(scheme: Scheme, all: readonly (readonly [LinearSite, Misfit | Refused])[]): void {
  const misfits = all.flatMap(([site, form]) => ('reason' in form ? [[site, form] as const] : []));
  if (misfits.length > 0) throw misfitError(misfits);
  const refused = all.flatMap(([site, form]) => ('refused' in form ? [[site, form] as const] : []));
  if (refused.length > 0) throw refusedError(scheme, refused);
}

/** Refuses what an engine would not load. @throws {HqqError} `ERR_CHECKPOINT_CONTENT` */
export function rejectUnloaded(
  engine: string,
  { name: scheme }: Scheme,
  layers: readonly PlannedLayer[],
  dense: readonly OtherTensor[],
  config: Readonly<Record<string, unknown>> | undefined,
): void {
  const found = notLoaded(
    engine,
    layers.map(({ site: { name, shape }, form: { config } }) => ({ ...config, name, scheme, shape })),
    dense.map(({ entry }) => layerOf(entry.name)),
    kindsOf(config),
  );
  if (found === undefined) return;
  const { title, layer, reason } = found;
  throw new HqqError(
    'ERR_CHECKPOINT_CONTENT',
    `Expected layers that ${title} loads (for, --for), but it would not load ${quote(layer.name)}: ${reason}.`,
  );
}
