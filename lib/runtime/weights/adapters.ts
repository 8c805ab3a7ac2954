import { yieldIfDue } from '../../files/event-loop.js';
import { HqqError } from '../../messages/errors.js';
import { plain, quote } from '../../messages/text.js';
import {
  type Adapter,
  type AdapterForm,
  type LoraMatrices,
  type LoraPair,
  openAdapter,
  otherModel,
  readFactor,
} from '../../models/adapter/lora.js';
import type { Model } from '../../models/model.js';
import type { LoraAdapter, LoraFactors } from '../blocks/lora.js';
import type { LanguageModelConfig } from '../config/model-config.js';
import { linearShapes } from './tensors.js';

/** Numbers that are looked at before others have their turn. */
const PIECE = 1 << 15;

/**
 * Reads LoRA adapters of peft for a model that `checkTensors` passes or will pass: their matrices are in memory afterwards, as float32.
 *
 * @param folders By name.
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for what is no such adapter, or one of another model; `ERR_CHECKPOINT_FORMAT`, `ERR_IO`
 */
export async function readAdapters(
  model: Pick<Model, 'path' | 'shapes'>,
  config: LanguageModelConfig,
  folders: ReadonlyMap<string, string>,
  signal?: AbortSignal,
): Promise<readonly LoraAdapter[]> {
  if (folders.size === 0) return [];
  const shapes = linearShapes(config, (name) => model.shapes.has(name));
  const adapters: LoraAdapter[] = [];
  for (const [name, folder] of folders)
    adapters.push(await readAdapter(name, folder, { path: model.path, shapes }, signal));
  return adapters;
}

/** One adapter. @param model Its path, and `[outFeatures, inFeatures]` of its linear layers by module. @throws as `readAdapters` */
export async function readAdapter(
  name: string,
  folder: string,
  model: {
    readonly path: string;
    readonly shapes: ReadonlyMap<string, readonly [outFeatures: number, inFeatures: number]>;
  },
  signal?: AbortSignal,
): Promise<LoraAdapter> {
  signal?.throwIfAborted();
  const opened = await openAdapter(
    folder,
    (matrices, adapter) => checkMatrices(model.path, adapter, matrices, model.shapes.get(matrices.module)),
    signal,
  );
  try {
    const factors = new Map<string, LoraFactors>();
    let bytes = 0;
    for (const pair of opened.pairs) {
      const own = await readPair(opened, pair, signal);
      bytes += own.down.byteLength + own.up.byteLength;
      factors.set(pair.module, own);
    }
    return Object.freeze({ name, factors, bytes });
  } finally {
    await opened.source.close();
  }
}

function checkMatrices(
  path: string,
  adapter: AdapterForm,
  { module, a, b }: LoraMatrices,
  shape: readonly [outFeatures: number, inFeatures: number] | undefined,
): void {
  const [outs, ins] = [b.shape[0]!, a.shape[1]!];
  if (shape?.[0] === outs && shape[1] === ins) return;
  const expected = `a linear layer ${quote(module)} of [${outs}, ${ins}]`;
  throw otherModel(path, adapter.path, expected, shape ? `[${shape.join(', ')}]` : 'none');
}

/** The scale goes into B once, so that nothing multiplies by it for every row. */
async function readPair(
  { source, path }: Adapter,
  { a, b, rank, scale }: LoraPair,
  signal: AbortSignal | undefined,
): Promise<LoraFactors> {
  const [down, up] = [await readFactor(source, a, signal), await readFactor(source, b, signal)];
  for (const [entry, numbers, factor] of [[a, down, 1] as const, [b, up, scale] as const]) {
    for (let i = 0; i < numbers.length; i++) {
      numbers[i]! *= factor;
      if (!Number.isFinite(numbers[i]!)) {
        const what = factor === 1 ? '' : `, times the scale ${factor}`;
        const message = `Expected ${quote(entry.name)} of the adapter in ${plain(path)} to be finite${what}, got ${numbers[i]} at [${Math.floor(i / entry.shape[1]!)}, ${i % entry.shape[1]!}].`;
        throw new HqqError('ERR_CHECKPOINT_CONTENT', message);
      }
      if (i % PIECE === 0) await yieldIfDue();
    }
    signal?.throwIfAborted();
  }
  return { rank, down, up };
}
