import { pathOfFile, type TensorEntry, type TensorSource } from '../containers/container.js';
import { expertSites } from '../containers/experts.js';
import { numbersOf } from '../containers/stored-types.js';
import { type Lie, storedShape } from '../containers/transpose.js';
import { yieldIfDue } from '../files/event-loop.js';
import { HqqError } from '../messages/errors.js';
import { plain, quote, quoteSome } from '../messages/text.js';
import type { StoredLayer } from '../schemes/scheme.js';
import { isLayer, tensorsOf } from './layers.js';
import type { Likeness } from './likeness.js';
import { knownOf } from './select/known.js';

// Two models whose tensors are compared: which of the one is which of the other.

/** One tensor that both have, under the name of the original. */
export interface Pair {
  readonly name: string;
  readonly a: TensorEntry;
  readonly b: TensorEntry | StoredLayer;
  /** How it lies in `a`. */
  readonly lie: Lie;
  readonly totals: { weights: number; abs: number; squared: number; squaredA: number; largest: number };
  /** How like the two are, as far as has been seen. */
  likeness: Likeness;
  left: number;
}

interface Pairs {
  readonly pairs: readonly Pair[];
  /** Names that only one of the two has. */
  readonly lone: readonly string[];
}

/** Experts of stacks as matrices of their own, as a quantized model has them: by name, with the stack that they are of. */
async function expertsOf(source: TensorSource): Promise<ReadonlyMap<string, Expert>> {
  const experts = new Map<string, Expert>();
  if (![...source.entries.values()].some(({ shape }) => shape.length === 3)) return experts;
  for (const item of source.envelope.linears(source.entries, await knownOf(source))) {
    await yieldIfDue();
    if ('reason' in item || item.experts === undefined) continue;
    for (const site of expertSites(item)) {
      experts.set(site.weight.name, { entry: site.weight, lie: site });
      if (site.bias) experts.set(site.bias.name, { entry: site.bias });
    }
  }
  return experts;
}

interface Expert {
  readonly entry: TensorEntry;
  readonly lie?: Lie;
}

/** What both have, by its name in the original. @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for what are no two forms of one model. */
export async function pairUp(a: TensorSource, b: TensorSource, layers: readonly StoredLayer[]): Promise<Pairs> {
  const theirs = tensorsOf(b, layers);
  const pairs: Pair[] = [];
  const experts = await expertsOf(a);
  const apart = new Set<string>(); // stacks that b has as matrices
  for (const [name, { entry, lie: own }] of [
    ...[...a.entries.values()].map((entry) => [entry.name, { entry } as Expert] as const),
    ...experts,
  ]) {
    const other = theirs.get(name);
    if (!other || (entry.part && a.entries.has(name))) continue;
    if (entry.part) apart.add(entry.part.of);
    const { shape } = entry;
    const count = shape.reduce((product, size) => product * size, 1);
    const lie = own ?? (isLayer(other) ? other : { shape: [1, count], stored: 'out-in' });
    const matrix = other.shape as Lie['shape'];
    const otherShape = own || isLayer(other) ? storedShape({ stored: lie.stored, shape: matrix }) : other.shape;
    if (shape.join() !== otherShape.join()) {
      const sizes = `[${shape.join(', ')}] in ${plain(a.path)} and [${otherShape.join(', ')}] in ${plain(b.path)}`;
      throw new HqqError('ERR_CHECKPOINT_CONTENT', `Expected two forms of one model, but ${quote(name)} is ${sizes}.`);
    }
    if (isLayer(other) && numbersOf(entry.type) === undefined) {
      const message = `Expected ${quote(name)} of the original to be floating-point, got ${entry.type.name}.`;
      throw new HqqError('ERR_CHECKPOINT_CONTENT', message);
    }
    const totals = { weights: 0, abs: 0, squared: 0, squaredA: 0, largest: 0 };
    const pair: Pair = { name, a: entry, b: other, lie, totals, likeness: 'equal', left: 0 };
    pair.left = isNumeric(pair) ? count : entry.end - entry.begin;
    pairs.push(pair);
  }
  if (pairs.length === 0) {
    const [ours, others] = [[...a.entries.keys()], [...theirs.keys()]];
    const message = `Expected two forms of one model, but ${plain(a.path)} and ${plain(b.path)} have no tensor name in common`;
    const names = `${quoteSome(ours, 2)} here, ${quoteSome(others, 2)} there`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}: ${names}.${oneOfEach(a, b, theirs)}`);
  }
  const onlyA = [...a.entries.keys()].filter((name) => !theirs.has(name) && !apart.has(name));
  const onlyB = [...theirs.keys()].filter((name) => !a.entries.has(name) && !experts.has(name));
  return { pairs, lone: [...onlyA, ...onlyB] };
}

/** Advice for models in several files, where what their tensors are called in the files themselves is called alike. */
function oneOfEach(a: TensorSource, b: TensorSource, theirs: ReadonlyMap<string, TensorEntry | StoredLayer>): string {
  if (a.files.length === 1 && b.files.length === 1) return '';
  const others = new Map<string, TensorEntry>();
  for (const [name, other] of theirs) {
    const entry = isLayer(other) ? other.entries[0] : other;
    others.set(ownName(b, name, entry), entry);
  }
  for (const entry of a.entries.values()) {
    const other = others.get(ownName(a, entry.name, entry));
    if (other) return ` Pass one file of each: ${plain(pathOfFile(a, entry))} and ${plain(pathOfFile(b, other))}.`;
  }
  return '';
}

/** What a tensor is called in its file. */
function ownName({ files }: TensorSource, name: string, { file }: TensorEntry): string {
  return name.slice(files.find((one) => one.name === file)?.prefix?.length ?? 0);
}

/** Both sides are numbers that the backend can compare. */
export function isNumeric({ a, b }: Pick<Pair, 'a' | 'b'>): boolean {
  return numbersOf(a.type) !== undefined && (isLayer(b) || b.type.float !== undefined);
}
