import * as fs from 'node:fs/promises';
import type { QuantSums } from '../../compute/arguments.js';
import type { Layout, TensorEntry, TensorSource } from '../../containers/container.js';
import { digestOf } from '../../containers/digest.js';
import { containerNamed } from '../../containers/list.js';
import { kindOf, withPath } from '../../files/io.js';
import { HqqError, show } from '../../messages/errors.js';
import { plain, quote } from '../../messages/text.js';
import type { ModelPlan, ShardPlan } from './plan.js';
import type { LayerResult } from './quantize-shard.js';

/** A shard that was written. Plain data. */
export interface ShardResult {
  readonly file: string;
  readonly layers: readonly LayerResult[];
  /** Seconds in the backend. */
  readonly computeSeconds: number;
}

// What comes back from other processes and machines is looked at before it becomes part of an output.

/** Refuses what does not tell of the shard's layers: it may come from another machine, and another version. */
export function checkResult({ file, layers }: ShardPlan, { layers: given, computeSeconds }: ShardResult): void {
  if (!Array.isArray(given)) throw strangeResult(file, `${show(given)} as its layers`);
  if (typeof computeSeconds !== 'number') throw strangeResult(file, `${show(computeSeconds)} as computeSeconds`);
  const left = new Map(layers.map((layer) => [layer.site.name, layer]));
  for (const result of given as readonly (LayerResult | null | undefined)[]) {
    const name = result?.layer?.site?.name;
    const planned = left.get(name!);
    if (planned === undefined)
      throw strangeResult(file, `a result of layer ${show(name)}, which is not in it or told of already`);
    const model = { layer: planned, sums: SUMS, seconds: 0 };
    const flaw =
      JSON.stringify(result!.layer.site) === JSON.stringify(planned.site) ? flawOf(result, model) : 'layer.site';
    if (flaw !== undefined) throw strangeResult(file, `another ${flaw} of layer ${quote(name!)}`);
    left.delete(name!);
  }
  const [missing] = left.keys();
  if (missing !== undefined) throw strangeResult(file, `no result of layer ${quote(missing)}`);
}

const SUMS: QuantSums = { absError: 0, squaredError: 0, squaredWeight: 0, iterations: 0, badIndex: -1 };

/** Where `value` has not the fields that `model` has, of the same kinds. */
function flawOf(value: unknown, model: unknown, path = ''): string | undefined {
  if (typeof value !== typeof model || (value === null) !== (model === null)) return path || 'shape';
  if (typeof model !== 'object' || model === null) return undefined;
  for (const [key, field] of Object.entries(model)) {
    if (field === undefined) continue; // which JSON does not carry
    const flaw = flawOf((value as Record<string, unknown>)[key], field, path === '' ? key : `${path}.${key}`);
    if (flaw !== undefined) return flaw;
  }
  return undefined;
}

export function strangeResult(file: string, got: string, cause?: unknown): HqqError {
  const message = `Expected the result of ${plain(file)} to be what writeShard gave, got ${got}. Write the shard again.`;
  return new HqqError('ERR_CHECKPOINT_CONTENT', message, cause === undefined ? undefined : { cause });
}

/** Refuses what is not the file that the layout describes. */
export async function checkPart(plan: ModelPlan, file: string, from: string, layout: Layout): Promise<void> {
  const refuse = (got: string): never => {
    const message = `Expected ${plain(from)} to be ${plain(file)} of the plan, got ${got}`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. Write the shard again.`);
  };
  const stat = await withPath('Cannot read', from, () => fs.lstat(from));
  // A link could lead to anybody's file, which would be in the output then, and change with it.
  if (!stat.isFile()) refuse(kindOf(stat));
  if (stat.size !== layout.fileSize) refuse(`${stat.size} bytes where it has ${layout.fileSize}`);
  const part = await containerNamed(plan.container).open(from);
  try {
    const own = [...part.entries.values()];
    const planned = [...layout.entries.values()];
    const other = planned.find((entry, index) => !isSame(entry, own[index]));
    if (other !== undefined) refuse(`a file without its tensor ${quote(other.name)}, or with it elsewhere`);
    if (own.length > planned.length) refuse(`a file that holds ${quote(own[planned.length]!.name)} too`);
  } finally {
    await part.close();
  }
}

function isSame(a: TensorEntry, b: TensorEntry | undefined): boolean {
  const place = ({ name, type, shape, begin, end }: TensorEntry) =>
    JSON.stringify([name, type.name, shape, begin, end]);
  return b !== undefined && place(a) === place(b);
}

/** Refuses a plan of another version, and a model that it was not made for. */
export async function checkPlan(plan: ModelPlan, source: TensorSource, signal: AbortSignal | undefined): Promise<void> {
  if (plan?.version !== 1) {
    throw new HqqError(
      'ERR_CHECKPOINT_CONTENT',
      `Expected a plan of version 1, got ${show(plan?.version)}. Make it anew.`,
    );
  }
  const digest = await digestOf(source, signal);
  if (digest === plan.digest) return checkEntries(plan, source);
  const message = `Expected ${plain(source.path)} to be the model that the plan was made for, but it is another, or has changed since`;
  throw new HqqError(
    'ERR_CHECKPOINT_CONTENT',
    `${message}: its digest is ${digest}, that of the plan ${show(plan.digest)}.`,
  );
}

/** Refuses a plan that was edited by hand: what it says of tensors must be what the model says. */
function checkEntries({ shards }: ModelPlan, { entries }: TensorSource): void {
  for (const { file, layers, copies } of shards) {
    const planned = layers.flatMap(({ site: { weight, bias } }) => (bias ? [weight, bias] : [weight]));
    const strange = planned.find(({ name, begin, end, part, ...entry }) => {
      const own = entries.get(part?.of ?? name);
      if (own === undefined || own.file !== entry.file) return true;
      return part ? begin < own.begin || end > own.end : own.begin !== begin || own.end !== end;
    });
    const name = strange?.name ?? copies.find((copy) => !entries.has(copy));
    if (name === undefined) continue;
    const message = `Expected the plan of ${plain(file)} to name tensors of the model where they are, but not ${show(name)}`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. Make the plan anew.`);
  }
}
