import { relativeError } from '../../compute/arguments.js';
import type { TensorEntry } from '../../containers/container.js';
import type { Range } from '../../containers/ranges.js';
import { plain } from '../../messages/text.js';
import type { Onlooker } from '../compare.js';
import { isLayer } from '../layers.js';
import type { Pair } from '../pairs.js';
import { type GroupErrors, Groups } from './groups.js';
import { Histogram, type Spread } from './histogram.js';

/** Tensors whose spreads a page holds, those with the largest errors: more would make it slow to open. */
const MOST_SPREADS = 1000;
/** Outliers of the whole model that are told. */
const MOST_OUTLIERS = 24;
/** Kinds and layers that the page tells apart: it draws a cell for each layer of each kind. */
const MOST_KINDS = 100;
const MOST_LAYERS = 1000;

/** One tensor, as the page shows it. */
export interface TensorFigures {
  readonly name: string;
  /** What it is in every layer: `self_attn.q_proj`. */
  readonly kind: string;
  /** Which layer it is of; null: none. */
  readonly layer: number | null;
  readonly shape: readonly number[];
  /** How it is stored: `4-bit, group 64`, or a type. */
  readonly storage: string;
  /** Whether it is stored as codes. */
  readonly quantized: boolean;
  /** Bytes in the original, and in what is compared with it. */
  readonly before: number;
  readonly after: number;
  /** `sum (a - b)^2` and `sum a^2`; null: equal, or no numbers. */
  readonly squared: number | null;
  readonly squaredA: number | null;
  readonly relative: number | null;
  readonly largest: number | null;
  readonly weights?: Spread;
  readonly errors?: Spread;
  readonly groups?: Omit<GroupErrors, 'told'>;
}

/** A group that fits badly, and whose it is. */
export interface ModelOutlier {
  readonly tensor: string;
  readonly place: string;
  readonly times: number;
  readonly peak: number;
}

/** Everything that was seen of two models. */
export interface Figures {
  readonly tensors: readonly TensorFigures[];
  readonly outliers: readonly ModelOutlier[];
}

interface Seen {
  weights: Histogram;
  errors: Histogram;
  groups: Groups | undefined;
}

type Found = Pick<TensorFigures, 'weights' | 'errors'> & { readonly groups?: GroupErrors };

/** Sees two models as they are compared, and keeps what the page shows. */
export class Gatherer implements Onlooker {
  #pairs: readonly Pair[] = [];
  readonly #open = new Map<Pair, Seen>();
  readonly #found = new Map<Pair, Found>();

  pairs(pairs: readonly Pair[]): void {
    this.#pairs = pairs;
  }

  numbers(pair: Pair, ranges: readonly Range[], original: Float32Array, other: Float32Array): void {
    if (pair.a.shape.length < 2) return;
    let seen = this.#open.get(pair);
    if (seen === undefined) this.#open.set(pair, (seen = begin(pair)));
    const errors = other; // what was decoded is read by nobody else
    for (let i = 0; i < errors.length; i++) errors[i] = errors[i]! - original[i]!;
    seen.weights.add(original);
    seen.errors.add(errors);
    seen.groups?.add(ranges, original, errors);
  }

  done(pair: Pair): void {
    const seen = this.#open.get(pair);
    this.#open.delete(pair);
    if (seen === undefined || pair.totals.squared === 0) return;
    const { weights, errors, groups } = seen;
    this.#found.set(pair, {
      ...{ weights: weights.spread(), errors: errors.spread() },
      ...(groups && { groups: groups.errors() }),
    });
  }

  figures(): Figures {
    const worst = [...this.#found.keys()].sort((a, b) => errorOf(b) - errorOf(a));
    const detailed = new Set(worst.slice(0, MOST_SPREADS));
    const outliers = [...this.#found]
      .flatMap(([{ name }, { groups }]) => groups?.told.map((one) => ({ tensor: plain(name), ...one })) ?? [])
      .sort((a, b) => b.times - a.times)
      .slice(0, MOST_OUTLIERS);
    const tensors = this.#pairs.map((pair) => describe(pair, this.#found.get(pair), detailed.has(pair)));
    return { tensors: withFewPlaces(tensors), outliers };
  }
}

function begin({ b }: Pair): Seen {
  const grid = isLayer(b) ? { shape: b.shape, groupSize: b.storage.groupSize, axis: b.storage.axis } : undefined;
  const groups = grid && Groups.fits(grid) ? new Groups(grid) : undefined;
  return { weights: new Histogram(), errors: new Histogram(), groups };
}

function errorOf({ totals }: Pair): number {
  return relativeError(totals.squared, totals.squaredA);
}

function describe(pair: Pair, found: Found | undefined, detailed: boolean): TensorFigures {
  const { name, a, b, totals } = pair;
  const size = ({ begin: from, end }: TensorEntry) => end - from;
  const measured = found !== undefined || isLayer(b);
  const { told: _, ...groups } = found?.groups ?? { told: [] };
  return {
    ...{ name: plain(name), ...placeOf(plain(name)), shape: a.shape },
    storage: isLayer(b) ? `${b.storage.nbits}-bit, group ${b.storage.groupSize}` : b.type.name,
    ...{ quantized: isLayer(b), before: size(a) },
    after: isLayer(b) ? b.entries.reduce((sum, entry) => sum + size(entry), 0) : size(b),
    squared: measured ? totals.squared : null,
    squaredA: measured ? totals.squaredA : null,
    relative: measured ? errorOf(pair) : null,
    largest: measured ? totals.largest : null,
    ...(detailed && { weights: found!.weights!, errors: found!.errors! }),
    ...('count' in groups && { groups }),
  };
}

/** Rows of the table of tensors: more would make the page slow. */
export const MOST_ROWS = 2000;

/** What the table of tensors holds. */
export function tableTitle(tensors: number): string {
  const [most, all] = [MOST_ROWS.toLocaleString('en'), tensors.toLocaleString('en')];
  return tensors > MOST_ROWS ? `The ${most} of ${all} tensors with the largest errors` : 'Every tensor';
}

/** The smallest of more kinds than the page draws become one, `others`; layers past those that it draws, none. */
export function withFewPlaces<T extends Pick<TensorFigures, 'kind' | 'layer' | 'before'>>(tensors: readonly T[]): T[] {
  const sizes = new Map<string, number>();
  for (const { kind, before } of tensors) sizes.set(kind, (sizes.get(kind) ?? 0) + before);
  const bySize = [...sizes.keys()].sort((a, b) => sizes.get(b)! - sizes.get(a)!);
  const kinds = new Set(bySize.slice(0, bySize.length > MOST_KINDS ? MOST_KINDS - 1 : MOST_KINDS));
  const numbers = [...new Set(tensors.map(({ layer }) => layer))].filter((layer) => layer !== null);
  const layers = new Set<number | null>(numbers.sort((a, b) => a - b).slice(0, MOST_LAYERS));
  return tensors.map((one) => ({
    ...one,
    kind: kinds.has(one.kind) ? one.kind : 'others',
    layer: layers.has(one.layer) ? one.layer : null,
  }));
}

/** The layer that a tensor's name tells, its first number, and what follows it. */
export function placeOf(name: string): { readonly kind: string; readonly layer: number | null } {
  const parts = name.replace(/\.weight$/, '').split('.');
  const at = parts.findIndex((part) => /^\d+$/.test(part));
  if (at < 0 || at === parts.length - 1) return { kind: parts.join('.'), layer: at < 0 ? null : Number(parts[at]) };
  const rest = parts.slice(at + 1).filter((part) => !/^\d+$/.test(part));
  return { kind: rest.join('.'), layer: Number(parts[at]) };
}
