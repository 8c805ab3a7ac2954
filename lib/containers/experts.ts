import type { ExpertLayers, LinearSite, TensorEntry, TensorPart } from './container.js';

/** Why a stack of experts stays as it is where the output cannot hold one. */
export const STACKED = 'experts in one 3-D tensor';

/** Why experts that lie one below the other in a matrix (DBRX) stay: no module of their model is the layer that they would be. */
export const FLATTENED = 'experts in one matrix';

/** Models whose code calls the layers of an expert w1, w3 (gate and up) and w2 (down). */
const W_MODELS: ReadonlySet<unknown> = new Set(['mixtral', 'minimax', 'minimax_m2', 'phimoe']);

/** Models in whose stacks outputs of gate and up take turns. */
const INTERLEAVED: ReadonlySet<unknown> = new Set(['gpt_oss']);

/** What the layers are called that a stack holds, as models have them that hold each expert by itself; undefined where none do. */
export function expertLayers(stack: string, modelTypes: readonly unknown[]): ExpertLayers | undefined {
  const leaf = /(?:^|\.)experts\.([^.]+)$/.exec(stack)?.[1];
  const short = modelTypes.some((type) => W_MODELS.has(type));
  if (leaf === 'down_proj') return { names: [short ? 'w2' : 'down_proj'] };
  if (leaf !== 'gate_up_proj') return undefined;
  const names: ExpertLayers['names'] = short ? ['w1', 'w3'] : ['gate_proj', 'up_proj'];
  return modelTypes.some((type) => INTERLEAVED.has(type)) ? { names, interleaved: true } : { names };
}

/**
 * The experts of a stack as layers of their own, in their order: `mlp.experts.down_proj` gives `mlp.experts.0.down_proj` and so on,
 * whose tensors are parts of those of the stack; `gate_up_proj` gives two layers for each. What is no stack is given as it is.
 */
export function* expertSites(site: LinearSite): Generator<LinearSite> {
  const { experts, layers, ...stack } = site;
  if (experts === undefined) {
    yield site;
    return;
  }
  const { name, weight, bias, shape, stored } = stack;
  const partOf = [weight.name, ...(bias ? [bias.name] : [])];
  const count = layers?.names.length ?? 1;
  const [outs, ins] = [shape[0] / count, shape[1]];
  for (let index = 0; index < experts; index++) {
    for (let turn = 0; turn < count; turn++) {
      const own = expertName(name, index, layers?.names[turn]);
      const part = { index, experts, turn, count, interleaved: layers?.interleaved === true };
      if (weight.expertsLie) {
        const entry = rowsOfEntry(weight, `${own}.weight`, [outs, ins], part);
        const ofBias = bias && { bias: partOfEntry(bias, `${own}.bias`, [outs], part, 'in-out') };
        yield { ...stack, name: own, shape: [outs, ins], stored: 'out-in', weight: entry, ...ofBias, partOf };
        continue;
      }
      yield {
        ...{ ...stack, name: own, shape: [outs, ins] },
        weight: partOfEntry(weight, `${own}.weight`, stored === 'in-out' ? [ins, outs] : [outs, ins], part, stored),
        ...(bias === undefined ? {} : { bias: partOfEntry(bias, `${own}.bias`, [outs], part, 'in-out') }),
        partOf,
      };
    }
  }
}

/** `experts.3.down_proj`, as most models call an expert's layers; of a stack in a module of another name `input_linear.3`. */
function expertName(stack: string, index: number, layer: string | undefined): string {
  const found = /^((?:.*\.)?experts)\.([^.]+)$/.exec(stack);
  return found === null ? `${stack}.${index}` : `${found[1]}.${index}.${layer ?? found[2]}`;
}

/** Which part of a stack. */
interface Part {
  readonly index: number;
  readonly experts: number;
  /** Which of the layers of an expert, of how many. */
  readonly turn: number;
  readonly count: number;
  readonly interleaved: boolean;
}

/** The same of a stack whose experts lie as their transpose. */
function rowsOfEntry(
  { expertsLie: _, ...entry }: TensorEntry,
  name: string,
  shape: readonly [number, number],
  { index, turn, count, interleaved }: Part,
): TensorEntry {
  const outs = shape[0] * count;
  const rows = { first: index * outs + (interleaved ? turn : turn * shape[0]), step: interleaved ? count : 1 };
  const size = shape[0] * shape[1] * entry.type.blockBytes;
  const begin = entry.begin + (index * count + turn) * size;
  return { ...entry, name, shape, begin, end: begin + size, part: { of: entry.name, rows } };
}

/** `stored`: whether outputs are the rows or the columns of an expert's matrix. */
function partOfEntry(
  entry: TensorEntry,
  name: string,
  shape: readonly number[],
  { index, experts, turn, count, interleaved }: Part,
  stored: LinearSite['stored'],
): TensorEntry {
  const size = (entry.end - entry.begin) / experts;
  const begin = entry.begin + index * size;
  const of: TensorPart = { of: entry.name };
  const whole = { ...entry, name, shape };
  if (count === 1) return { ...whole, begin, end: begin + size, part: of };
  const own = size / count;
  if (stored === 'out-in') return { ...whole, begin: begin + turn * own, end: begin + (turn + 1) * own, part: of };
  const each = shape.at(-1)!;
  const columns = { ...(interleaved ? { first: turn, step: count } : { first: turn * each, step: 1 }), each };
  return { ...whole, begin, end: begin + own, part: { ...of, columns: { ...columns, width: count * each } } };
}

/** Bytes of a tensor that are read at once to take columns of them. */
const SPAN_BYTES = 1024 * 1024;

/** The elements of some columns from byte `at` on, part by part: what is read of the tensor that has them, and what is taken of that. */
export function* columnReads(
  { first, step, each, width }: NonNullable<TensorPart['columns']>,
  size: number,
  at: number,
  into: Uint8Array,
): Generator<{ readonly at: number; readonly bytes: Uint8Array; readonly take: () => void }> {
  const place = (element: number) => Math.floor(element / each) * width + first + (element % each) * step;
  const end = (at + into.length) / size;
  const most = Math.max(1, Math.floor((SPAN_BYTES / size) * (each / width)));
  for (let element = at / size; element < end; ) {
    const count = Math.min(most, end - element);
    const from = place(element);
    const bytes = new Uint8Array((place(element + count - 1) - from + 1) * size);
    const to = element * size - at;
    const begin = element;
    yield {
      at: from * size,
      bytes,
      take() {
        for (let i = 0; i < count; i++) {
          const source = (place(begin + i) - from) * size;
          for (let byte = 0; byte < size; byte++) into[to + i * size + byte] = bytes[source + byte]!;
        }
      },
    };
    element += count;
  }
}
