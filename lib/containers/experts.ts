import type { LinearSite, TensorEntry } from './container.js';

/** Why a stack of experts stays as it is where the output cannot hold one. */
export const STACKED = 'experts in one 3-D tensor';

/** Why experts that lie one below the other in a matrix (DBRX) stay: no module of their model is the layer that they would be. */
export const FLATTENED = 'experts in one matrix';

/**
 * The experts of a stack as layers of their own, in their order: `mlp.experts.down_proj` gives `mlp.experts.0.down_proj` and so on,
 * whose tensors are parts of those of the stack. What is no stack is given as it is.
 */
export function* expertSites(site: LinearSite): Generator<LinearSite> {
  const { experts, ...stack } = site;
  if (experts === undefined) {
    yield site;
    return;
  }
  const { name, weight, bias, shape, stored } = stack;
  const partOf = [weight.name, ...(bias ? [bias.name] : [])];
  const [outs, ins] = shape;
  for (let index = 0; index < experts; index++) {
    const own = expertName(name, index);
    yield {
      ...stack,
      name: own,
      weight: partOfEntry(weight, `${own}.weight`, stored === 'in-out' ? [ins, outs] : [outs, ins], index, experts),
      ...(bias === undefined ? {} : { bias: partOfEntry(bias, `${own}.bias`, [outs], index, experts) }),
      partOf,
    };
  }
}

/** `experts.3.down_proj`, as most models call an expert's layers; of a stack in a module of another name `input_linear.3`. */
function expertName(stack: string, index: number): string {
  return /(^|\.)experts\.[^.]+$/.test(stack)
    ? stack.replace(/(?<=(?:^|\.)experts\.)(?=[^.]+$)/, `${index}.`)
    : `${stack}.${index}`;
}

function partOfEntry(
  entry: TensorEntry,
  name: string,
  shape: readonly number[],
  index: number,
  count: number,
): TensorEntry {
  const size = (entry.end - entry.begin) / count;
  const begin = entry.begin + index * size;
  return { ...entry, name, shape, begin, end: begin + size };
}
