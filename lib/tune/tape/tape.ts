import { KEY_STRIP } from '../../matrix/constants.js';
import type { LayerCache } from '../../runtime/blocks/cache.js';
import { DenseLinear, type Linear, type NamedLinear } from '../../runtime/blocks/linear.js';
import { Plan, type PlanRun, type PreparedPlan } from '../../runtime/blocks/plan.js';
import { positionsFrom, type Rows } from '../../runtime/blocks/rows.js';
import type { Machine } from '../../runtime/pass.js';
import type { BlockInside, OpenBlock } from '../../runtime/source/open-block.js';
import { differentiate } from './differentiate.js';
import { Room } from './room.js';
import type { Floats } from './spans.js';

/** What is recorded of a block. */
export interface Recorded {
  /** Positions of each of the texts that go through it side by side, each by itself from position 0. */
  readonly lengths: readonly number[];
  /** Weights of linear layers, `[outFeatures, inFeatures]`, by module: what they hold may change from run to run. The block has all others. */
  readonly weights: ReadonlyMap<string, Floats>;
  /** Whether the gradient of what goes into the block is wanted, beside those of the weights. */
  readonly ofInput: boolean;
}

/** A block as it is computed forwards and back, any number of times: steps over arrays of its own, whose arguments were read once. */
export interface Tape {
  /** `[rows, hiddenSize]`, the texts one after the other: what goes into the block before `forward`, and what comes out after. */
  readonly hidden: Floats;
  /**
   * As long. Before `backward`, the gradient of what came out, by the caller; after, that of what went in (without `ofInput`: anything).
   */
  readonly gradient: Floats;
  /** The gradients of the weights after `backward`, by module. */
  readonly weightGradients: ReadonlyMap<string, Floats>;
  /** Whether `forward` has just computed with the weight of a module: experts that no position went through are left out. */
  isReached(module: string): boolean;
  /** Runs the block. @throws the signal's reason */
  forward(run: PlanRun): Promise<void>;
  /** Goes back through what `forward` did last. @throws the signal's reason */
  backward(run: PlanRun): Promise<void>;
}

/**
 * Records a block, for which it must stay open.
 *
 * @param room Where its arrays are from; they are free again when the tape is not used any more.
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for a block that is quantized; `ERR_OUT_OF_MEMORY`, `ERR_CLOSED`
 */
export function recordBlock({ inside }: OpenBlock, recorded: Recorded, room = new Room()): Tape {
  const { block, config, machine } = inside;
  const { lengths } = recorded;
  const rows = rowsOf(inside, lengths, room);
  const cache = cacheFor(inside, Math.max(...lengths), room);
  const texts = lengths.map((length) => ({ rows: length, cache }));
  return tapeOf({ hidden: rows.hidden, linears: block.linears, machine, room }, recorded, (replaced) => {
    const plan = new Plan(machine.threads);
    block.with(replaced).addTo(plan, rows, room.frame(config, rows.count), texts);
    return plan;
  });
}

/** What is recorded, whatever its block is. */
interface TapeOf {
  /** What goes into the plan, and comes out. */
  readonly hidden: Floats;
  readonly linears: readonly NamedLinear[];
  readonly machine: Machine;
  readonly room: Room;
}

/** @param planOf The block as a plan, with other layers in place of some. */
export function tapeOf(
  { hidden, linears, machine, room }: TapeOf,
  { weights, ofInput }: Recorded,
  planOf: (replaced: ReadonlyMap<string, Linear>) => Plan,
): Tape {
  const layers = linears.filter(({ module }) => weights.has(module));
  const replaced = layers.map(({ module, linear: { outFeatures, inFeatures, bias } }) => {
    return [module, new DenseLinear(weights.get(module)!, [outFeatures, inFeatures], bias)] as const;
  });
  const plan = planOf(new Map(replaced));
  const weightGradients = new Map(layers.map(({ module }) => [module, room.take(weights.get(module)!.length)]));
  const wanted = new Map(layers.map(({ module }) => [weights.get(module)!, weightGradients.get(module)!]));
  const what = { ...(ofInput && { input: hidden }), output: hidden, weights: wanted };
  const { forward, backward, outputGradient, isReached } = differentiate(plan, what, room);
  const [there, back] = [forward.prepare(machine.backend), backward.prepare(machine.backend)];
  const run = (prepared: PreparedPlan) => (how: PlanRun) => prepared.run(how);
  return {
    ...{ hidden, gradient: outputGradient, weightGradients, forward: run(there), backward: run(back) },
    isReached: (module) => isReached(weights.get(module)!),
  };
}

/** Rows of texts that lie one after the other. */
function rowsOf({ config, ropes }: BlockInside, lengths: readonly number[], room: Room): Rows {
  const count = lengths.reduce((sum, length) => sum + length, 0);
  return {
    count,
    positions: Int32Array.from(lengths.flatMap((length) => [...positionsFrom(0, length)])),
    ropes: ropes.map((rope) => {
      const each = lengths.map((length) => rope.rows(0, length));
      const all = (of: 'cos' | 'sin') => Float32Array.from(each.flatMap((rows) => [...rows[of]]));
      return { cos: all('cos'), sin: all('sin') };
    }),
    hidden: room.take(count * config.hiddenSize),
  };
}

/** Keys and values of a text. One serves all: each writes its own before it reads them. */
function cacheFor({ config: { kvHeads, headDim } }: BlockInside, length: number, room: Room): LayerCache {
  const capacity = Math.ceil(length / KEY_STRIP) * KEY_STRIP;
  const [keys, values] = [room.take(capacity * kvHeads * headDim), room.take(capacity * kvHeads * headDim)];
  const none = new Float32Array(0);
  return { cacheType: 0, segments: [{ capacity, keys, values, keyMeta: none, valueMeta: none }] };
}
