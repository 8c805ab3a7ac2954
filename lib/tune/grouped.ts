import { roundThrough } from '../compute/floats.js';
import { metaJob } from '../compute/metadata.js';
import { quantize } from '../compute/quantize.js';
import { type Machine, runTask } from '../compute/run.js';
import type { ChosenCodes } from '../containers/grid.js';
import { inTurns, type Steps } from '../files/event-loop.js';
import type { OwnedFloat32Array } from '../matrix/arrays.js';
import { highestCode, type Prune, type ResolvedQuantConfig } from '../matrix/config.js';
import type { DType } from '../matrix/dtype.js';
import { geometryOf } from '../matrix/geometry.js';
import { pruneRows } from '../models/quantize/prune.js';
import type { PlannedLayer, Scheme } from '../schemes/scheme.js';
import type { TunedStart } from '../schemes/tuned.js';

// Layers that are codes with scales and zeros in tensors of their own.

/** Weights of the rows that are pruned between turns. */
const PRUNED_AT_ONCE = 1 << 14;

/** How scales and zeros of a layer are stored. */
export interface StoredAs {
  readonly metaDtype: DType;
  /** What float zeros are stored less of, rounded after that. */
  readonly zeroFrom: number;
}

/** The same of a layer that has such scales and zeros, which may decide it. */
export type StoredAsOf = (layer: PlannedLayer, scales: Pick<ChosenCodes, 'scale' | 'zero'>) => StoredAs;

/** How a scheme stores them. */
export const storedAsIn =
  (scheme: Scheme): StoredAsOf =>
  ({ form }, scales) => {
    const settled = scheme.probe?.needed(form) ? scheme.probe.scales(form, scales) : form;
    return { metaDtype: scheme.summarize(settled).metaDtype ?? 'float32', zeroFrom: scheme.zeroFrom?.(form) ?? 0 };
  };

/** Solves a layer, whose weights are pruned in place where that is asked for. @throws {HqqError} as `quantize` */
export async function beginGrouped(
  layer: PlannedLayer,
  floats: Float32Array,
  importance: Float32Array | undefined,
  storedAsOf: StoredAsOf,
  machine: Machine,
): Promise<TunedStart> {
  const { config } = layer.form;
  const { shape } = layer.site;
  const { threads, signal } = machine;
  const { prune } = config;
  if (prune !== 0) await inTurns(pruned(floats, shape[1], prune, importance), signal);
  // Its group size says what a granularity stands for: both at once are refused. What is pruned is so already.
  const own = { ...config, granularity: 'group', prune: 0 } as const;
  const { scale, zero } = await quantize({ data: floats, dtype: 'float32', shape }, own, {
    ...{ threads, signal },
    ...(importance && { importance }),
  });
  const storedAs = storedAsOf(layer, { scale, zero });
  const { rows, cols } = geometryOf(shape, config);
  return {
    ...{ rows, cols, axis: config.axis, maxCode: highestCode(config.nbits), zeroPoint: config.zeroPoint },
    ...{ sparse: prune !== 0, weights: floats, scale, zero },
    async settle(moved, shifted) {
      const kept = await storedScales(moved, shifted, config, storedAs, machine);
      return {
        ...kept.stored,
        store: async (codes, values) => ({ chosen: { codes, scale: kept.scale, zero: kept.zero }, values }),
      };
    },
  };
}

/** Makes zeros of the weights that those who write the layer make zeros of. */
function* pruned(floats: Float32Array, width: number, prune: Prune, importance: Float32Array | undefined): Steps<void> {
  const together = width * Math.max(1, Math.floor(PRUNED_AT_ONCE / width));
  for (let at = 0; at < floats.length; at += together) {
    pruneRows(floats.subarray(at, at + together), 'float32', width, prune, importance);
    yield;
  }
}

/** Scales and zeros of the types that they have and are stored in; and, `stored`, as they are read again: of bytes, what these stand for. */
export async function storedScales(
  ofScale: OwnedFloat32Array,
  ofZero: OwnedFloat32Array,
  config: ResolvedQuantConfig,
  { metaDtype, zeroFrom }: StoredAs,
  machine: Machine,
): Promise<Pick<ChosenCodes, 'scale' | 'zero'> & { readonly stored: Pick<ChosenCodes, 'scale' | 'zero'> }> {
  const scale = roundThrough(roundThrough(ofScale, config.scaleDtype), metaDtype);
  const zero = config.zeroPoint === 'float' ? roundZeros(ofZero, metaDtype, zeroFrom) : ofZero;
  if (config.metaBits !== 8) return { scale, zero, stored: { scale, zero } };
  const stored = { scale: scale.slice(), zero: zero.slice() };
  const { steps, widening } = metaJob(stored.scale, stored.zero, config, machine.threads);
  for (const { operation, args } of steps) await runTask(machine.backend, operation, args, machine);
  await runTask(machine.backend, 'sequence', { steps: widening }, machine);
  return { scale, zero, stored };
}

function roundZeros(zero: OwnedFloat32Array, dtype: DType, from: number): OwnedFloat32Array {
  if (from === 0) return roundThrough(zero, dtype);
  const less = zero.map((value) => value - from);
  return roundThrough(less, dtype).map((value) => value + from);
}
