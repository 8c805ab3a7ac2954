import type { LinearSite, OtherTensor, TensorSource } from '../../containers/container.js';
import { expertSites, STACKED } from '../../containers/experts.js';
import { layerOf } from '../../containers/names.js';
import { yieldIfDue } from '../../files/event-loop.js';
import type { QuantConfig } from '../../matrix/config.js';
import { resolveQuantConfig } from '../../matrix/options.js';
import { overlay } from '../../matrix/overlay.js';
import { HqqError } from '../../messages/errors.js';
import { plain, quote, quoteSome } from '../../messages/text.js';
import { formatCount, plural } from '../../messages/units.js';
import type { Scheme } from '../../schemes/scheme.js';
import { schemesOf, tracesOf } from '../layers.js';
import type { ResolvedModelOptions, ResolvedOptions } from '../options.js';
import type { Architecture } from './architecture.js';
import { compileGlob, GLOB_OPTIONS, type Glob, unmatched } from './globs.js';
import { flattenedNote, guessedNote, stackedNote, strangeNote, versionNote } from './known.js';

/** A layer that will be quantized. */
interface SelectedLayer {
  readonly site: LinearSite;
  /** What was asked for, overrides included. */
  readonly config: QuantConfig;
}

interface Selection {
  readonly layers: readonly SelectedLayer[];
  /** Tensors that stay, and why. */
  readonly dense: readonly OtherTensor[];
  /** Names of those that would not, were they included by their names. */
  readonly doubtful: ReadonlySet<string>;
  readonly notes: readonly string[];
}

/**
 * Chooses the linear weights, and says of every other tensor why it stays. A matrix that is not taken for a linear weight is
 * chosen where its very name is included, or where no matrix is called as linear weights are, a pattern that matches it. A stack of
 * experts is chosen by its own name, and becomes a layer for each of them, where the scheme has it so.
 *
 * @param scheme Of the output.
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` when nothing is left, a pattern does nothing, or the model is quantized already, or an adapter.
 */
export async function selectLayers(
  source: TensorSource,
  asked: QuantConfig,
  options: ResolvedModelOptions & Pick<ResolvedOptions, 'own'>,
  scheme: Scheme,
  known?: Architecture,
): Promise<Selection> {
  rejectUnfit(source, tracesOf(source));
  const include = options.include.map(compileGlob);
  const exclude = options.exclude.map(compileGlob);
  const overrides = Object.entries(options.overrides).map(([text, override]) => ({ ...compileGlob(text), override }));
  const layers: SelectedLayer[] = [];
  const dense: OtherTensor[] = [];
  const doubtful = new Set<string>();
  const notes = new Set<string>();
  const names = new Names();
  // Where no matrix is called as layers are, names tell nothing: it is for the patterns to choose.
  const unnamed = ![...source.entries.values()].some(({ name, shape }) => shape.length === 2 && layerOf(name) !== name);

  for (const item of source.envelope.linears(source.entries, known)) {
    await yieldIfDue();
    if ('reason' in item) {
      dense.push(item);
      continue;
    }
    const { weight, head, tied, stored, doubt } = item;
    const { name } = weight;
    names.add(name, item.nodes);
    // What is stored [in, out] is no nn.Linear: nobody who loads the model takes it for one.
    const linear = doubt?.linear ?? (stored === 'out-in' && item.experts === undefined);
    const stay = (reason: string) => dense.push({ entry: weight, reason, linear });
    const wanted = include.some((glob) => names.match(glob, name));
    const asEmbedding = options.embeddings !== undefined && item.embedding === true;
    if (item.experts !== undefined && scheme.unloadedExperts !== 'refused' && !scheme.experts?.(item)) stay(STACKED);
    else if (doubt && !asEmbedding && !include.some((glob) => names.are(glob, name)) && !(wanted && unnamed)) {
      stay(doubt.reason);
      doubtful.add(name);
    } else if (tied === 'tied') {
      stay(item.source === undefined || head !== undefined ? 'tied to the embedding' : 'one matrix with other layers');
      if ([...include, ...overrides].some((glob) => names.match(glob, name))) {
        const to =
          item.source === undefined || head !== undefined ? 'the embedding (tie_word_embeddings)' : 'other layers';
        notes.add(`${plain(name)} is tied to ${to} and was left as it is.`);
      }
    } else if (exclude.some((glob) => names.match(glob, name))) stay('excluded');
    else if (include.length > 0 && !wanted && !asEmbedding) stay('not included');
    else if (include.length === 0 && head !== undefined) stay(`excluded by default: ${head}`);
    else if (tied === 'unsaid') {
      stay('may be tied to the embedding');
      const advice = 'If it is not, say so there ("tie_word_embeddings": false) to quantize it';
      notes.add(
        `${plain(name)} was left as it is: config.json does not say whether it is tied to the embedding. ${advice}.`,
      );
    } else {
      const own = overrides.filter((glob) => names.match(glob, name)).map((glob) => glob.override);
      const start = asEmbedding ? overlay(asked, { nbits: options.embeddings, prune: 0 }) : asked;
      const had = options.own?.get(name);
      const config = own.reduce(overlay, had ? overlay(start, had) : start);
      if (had) checkOwn(name, config, options, scheme);
      for (const site of expertSites(item)) layers.push({ site, config });
    }
  }

  if (options.embeddings !== undefined && !layers.some(({ site }) => site.embedding)) throw noEmbedding(source.path);
  const said = known
    ? strangeNote(known, dense)
    : guessedNote(
        source,
        layers.map(({ site }) => site.name),
      );
  for (const note of [known && versionNote(known), said, stackedNote(dense, scheme), flattenedNote(dense)])
    if (note !== undefined) notes.add(note);
  const selection = { layers, dense, doubtful, notes: [...notes] };
  checkGlobs('include', include, source, selection, names);
  checkGlobs('overrides', overrides, source, selection, names);
  const tensors = [...source.entries.keys()];
  for (const glob of exclude)
    if (!tensors.some((name) => names.match(glob, name))) throw unmatched('exclude', glob, names.all(tensors));
  return selection;
}

/** What weights are called: as tensors, and by the nodes that compute with them, where there are such. */
class Names {
  readonly #nodes = new Map<string, readonly string[]>();

  add(tensor: string, nodes: readonly string[] | undefined): void {
    if (nodes && nodes.length > 0) this.#nodes.set(tensor, nodes);
  }

  match(glob: Glob, tensor: string): boolean {
    return glob.matches(tensor) || (this.#nodes.get(tensor)?.some(glob.matches) ?? false);
  }

  are(glob: Glob, tensor: string): boolean {
    return glob.names(tensor) || (this.#nodes.get(tensor)?.some(glob.names) ?? false);
  }

  *all(tensors: Iterable<string>): Generator<string> {
    yield* tensors;
    for (const nodes of this.#nodes.values()) yield* nodes;
  }
}

/** Refuses what a layer has already and the format has not. */
function checkOwn(name: string, config: QuantConfig, { metaDtype }: ResolvedModelOptions, scheme: Scheme): void {
  try {
    scheme.check?.(config, metaDtype);
    resolveQuantConfig(config);
  } catch (error) {
    throw ownError(error, plain(name), ', or exclude it (exclude, --exclude)');
  }
}

/** An error of options that nobody asked for: whose they are, and what to do. */
export function ownError(error: unknown, whose: string, otherwise = ''): unknown {
  if (!(error instanceof HqqError)) return error;
  const advice = `Ask for others (nbits, --nbits; overrides, --override)${otherwise}.`;
  return new HqqError(error.code, `${error.message} ${whose} has its own from when it was quantized. ${advice}`);
}

function noEmbedding(path: string): HqqError {
  const message = `Expected ${plain(path)} to have an embedding to quantize (embeddings, --embeddings)`;
  const what = 'a floating-point matrix called as such (embed_tokens.weight, wte.weight) that is not excluded';
  return new HqqError(
    'ERR_CHECKPOINT_CONTENT',
    `${message}, ${what}. It has none; one of another name, include by it.`,
  );
}

/** Why nothing is left to quantize. Of a model without any tensors its notes say more. */
export function nothingLeft({ path, envelope: { notes } }: TensorSource, { dense, doubtful }: Selection): HqqError {
  const counts = new Map<string, number>();
  for (const { reason } of dense) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  const reasons = [...counts]
    .sort((a, b) => b[1] - a[1])
    .slice(0, 8)
    .map(([reason, count]) => `${count} ${reason}`);
  const what =
    dense.length === 1 ? 'its one tensor stays as it is' : `its ${plural(dense.length, 'tensor')} stay as they are`;
  const why =
    dense.length === 0
      ? ['it holds no tensors', ...notes].join('. ').replace(/\.$/, '')
      : `${what} (${reasons.join('; ')})`;
  const excluded = counts.get('excluded') ?? 0;
  if (excluded > 0) {
    const all = excluded === 1 ? 'the one weight' : `all ${formatCount(excluded)} weights`;
    const message = `Expected ${GLOB_OPTIONS.exclude} to leave something to quantize, but it matches ${all} of ${plain(path)}`;
    return new HqqError('ERR_CHECKPOINT_CONTENT', `${message} that would be quantized. Narrow its patterns.`);
  }
  const advice =
    doubtful.size === 0 ? '' : ` What is to be quantized all the same, include by name: ${quoteSome([...doubtful])}.`;
  return new HqqError('ERR_CHECKPOINT_CONTENT', `${plain(path)} has no linear weight to quantize: ${why}.${advice}`);
}

/** A pattern must do something: a typo would go unnoticed. Only tied heads are excused; a note tells of them. */
function checkGlobs(
  option: keyof typeof GLOB_OPTIONS,
  globs: readonly Glob[],
  source: TensorSource,
  selection: Selection,
  names: Names,
): void {
  const { layers, dense, doubtful } = selection;
  for (const glob of globs) {
    if (layers.some(({ site: { weight, partOf } }) => names.match(glob, partOf?.[0] ?? weight.name))) continue;
    const stays = dense.filter(({ entry }) => names.match(glob, entry.name));
    if (stays.length === 0) throw unmatched(option, glob, names.all(source.entries.keys()));
    if (stays.some(({ reason }) => /tied to the embedding$|^one matrix/.test(reason))) continue;
    const first = stays[0]!;
    const rest = stays.length > 1 ? ` (and ${stays.length - 1} more)` : '';
    const advice = doubtful.has(first.entry.name)
      ? ' Include it by its very name to quantize it all the same.'
      : option === 'overrides' && /^(excluded by default|not included)/.test(first.reason)
        ? ' Include it too.'
        : '';
    const name = quote(first.entry.name);
    const message = `Expected ${GLOB_OPTIONS[option]} ${quote(glob.text)} to match a weight that is quantized, but ${name}${rest}`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message} stays as it is: ${first.reason}.${advice}`);
  }
}

/** What can be done with what is quantized already: where a format has types to choose from, and where not. */
const AGAIN = 'let its numbers be fitted anew (requantize, --requantize), whose errors add up';
const BACK = 'turn this one back first (hqq dequantize, dequantizeModel)';

/** Refuses what is no model of floating-point weights, before anything is written. */
function rejectUnfit(source: TensorSource, traces: string | undefined): void {
  const { path, entries, envelope } = source;
  const again = schemesOf(source).some(({ types }) => types);
  const found = envelope.obstacle(entries);
  const obstacle =
    traces === undefined
      ? found
      : {
          // Where tensors show it, in which of the files is said, too.
          what: found?.seen ? found.what : `is quantized already: ${traces}`,
          advice: `Quantize the float original instead, or ${again ? AGAIN : BACK}.`,
        };
  if (obstacle === undefined) return;
  throw new HqqError('ERR_CHECKPOINT_CONTENT', `${plain(path)} ${obstacle.what}. ${obstacle.advice}`);
}
