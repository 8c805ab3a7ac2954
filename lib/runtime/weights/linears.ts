import { QuantizedLinear } from '../../compute/linear.js';
import { checkLinearOptions } from '../../compute/linear-options.js';
import { LaidOut } from '../../compute/panels.js';
import { resolveThreads } from '../../compute/run.js';
import { checkQuantized } from '../../matrix/validate.js';
import type { RunOptions } from '../../matrix/weight.js';
import { allocating } from '../../messages/allocating.js';
import { quote } from '../../messages/text.js';
import type { Model } from '../../models/model.js';
import { CodedLinear, DenseLinear, type Linear } from '../blocks/linear.js';
import { FiledLinear, type Slots } from './filed-linear.js';
import { OWN, type WeightMemory } from './slabs.js';
import { quantizeTable } from './table.js';
import type { LinearSpec } from './tensors.js';

/** How weights are read, and what quantized layers compute with. */
export interface ReadOptions extends RunOptions {
  readonly activations: 'float32' | 'int8';
}

/** Reads a linear layer, whatever its weights are. */
export async function readLinear(
  model: Model,
  { module, shape, bias: hasBias, stack }: LinearSpec,
  isCoded: boolean,
  { activations, signal, threads }: ReadOptions,
  { floats, panels }: WeightMemory = OWN,
): Promise<Linear> {
  if (stack) {
    const weights = allocating(quote(module), () => floats(shape[0] * shape[1]));
    await model.loadRows(stack.tensor, [stack.index], weights, { signal, threads });
    return new DenseLinear(weights, shape);
  }
  const bias = hasBias ? await model.load(`${module}.bias`, { signal, threads }) : undefined;
  if (!isCoded) {
    const weights = await readMatrix(model, `${module}.weight`, shape[0] * shape[1], { signal, threads }, floats);
    return new DenseLinear(weights, shape, bias);
  }
  const q = await model.loadQuantized(module, { signal, threads });
  checkQuantized(q); // before there is memory for it
  checkLinearOptions({ bias, activations }, q.shape[0]);
  const memory = await panels(q, signal);
  const laidOut = await LaidOut.later(q, { signal, threads: resolveThreads(threads) }, undefined, memory);
  return new CodedLinear(new QuantizedLinear(laidOut, { bias, activations }));
}

/** A linear layer of floats that stay in the file. */
export async function filedLinear(model: Model, spec: LinearSpec, run: RunOptions, slots: Slots): Promise<Linear> {
  return new FiledLinear(spec.shape, await biasOf(model, spec, run), { read: rowsOf(model, spec), slots });
}

/** A linear layer of floats, in 8 bits. */
export async function quantizedLinear(
  model: Model,
  spec: LinearSpec,
  group: number,
  { activations, signal, threads }: ReadOptions,
): Promise<Linear> {
  const bias = await biasOf(model, spec, { signal, threads });
  const read = rowsOf(model, spec);
  const rows = (from: number, to: number, out: Float32Array) => read(from, to, out, { signal, threads });
  const run = { activations, bias, signal, threads };
  return new CodedLinear(await quantizeTable(`${spec.module}.weight`, spec.shape, group, rows, run));
}

/** All of a matrix, in float32. */
export async function readMatrix(
  model: Model,
  name: string,
  count: number,
  { signal, threads }: RunOptions,
  floats: (count: number) => Float32Array,
): Promise<Float32Array> {
  const out = allocating(quote(name), () => floats(count));
  await model.loadInto(name, out, { signal, threads });
  return out;
}

async function biasOf(
  model: Model,
  { module, bias }: LinearSpec,
  { signal, threads }: RunOptions,
): Promise<Float32Array | undefined> {
  return bias ? await model.load(`${module}.bias`, { signal, threads }) : undefined;
}

/** Rows `[from, to)` of a layer's weights; `shape` is what one of a stack has. */
function rowsOf(model: Model, { module, shape, stack }: LinearSpec) {
  const [name, first] = stack ? [stack.tensor, stack.index * shape[0]] : [`${module}.weight`, 0];
  return (from: number, to: number, out: Float32Array, { signal, threads }: RunOptions) => {
    const rows = Uint32Array.from({ length: to - from }, (_, i) => first + from + i);
    return model.loadRows(name, rows, out, { signal, threads });
  };
}
