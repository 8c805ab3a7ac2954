import { newParts, packBlock, unpackBlock } from '../../backend/js/blocks/bytes.js';
import { floatOfHalf, halfOfFloat } from '../../backend/js/lanes.js';
import { nonFiniteError } from '../../compute/arguments.js';
import { type Machine, runTask } from '../../compute/run.js';
import { inTurns, type Steps } from '../../files/event-loop.js';
import type { BlockType } from '../../matrix/block-types.js';
import { allocating } from '../../messages/allocating.js';
import { plain } from '../../messages/text.js';
import type { PlannedLayer, Scheme } from '../scheme.js';
import type { SettledScales, TunedResult, TunedStart } from '../tuned.js';
import { fitBlocks } from './encode.js';
import { type BlockForm, typeNamed } from './form.js';

// Blocks that are tuned. A block that is one sub-block has a scale, and some a minimum, of its own: these move with the codes. Where scales are whole
// numbers, codes alone are tuned.

const NO_FLOATS = new Float32Array(0);

/** Blocks that are written between turns. */
const AT_ONCE = 256;

/** Scales that are rounded between turns. */
const SCALES_AT_ONCE = 4096;

const bytesOf = ({ type, shape: [rows, cols] }: BlockForm): number => {
  const { weights, bytes } = typeNamed(type);
  return ((rows * cols) / weights) * bytes;
};

export const blockTuning: NonNullable<Scheme<BlockForm>['blockTuning']> = {
  obstacle({ type, kept }) {
    if (kept) return 'the codes that it has are kept as they are';
    return typeNamed(type).curved ? `${type} has levels on a curve, which have no gradient here` : undefined;
  },
  bytes: bytesOf,
  async begin({ site, form }, floats, importance, machine) {
    const type = typeNamed(form.type);
    const groups = floats.length / type.sub;
    const { blocks, values } = await solved({ site, form }, floats, importance, machine);
    const { codes, scale, zero } = allocating('the blocks of a layer that is tuned', () => ({
      codes: new Uint8Array(floats.length),
      scale: new Float32Array(groups),
      zero: new Float32Array(groups),
    }));
    const { backend, threads } = machine;
    await runTask(backend, 'splitBlocks', { type: type.id, blocks, threads, codes, scale, zero }, machine);
    const own = floats.slice();
    await inTurns(levelled(type, { codes, scale, zero, values }, own), machine.signal);
    const start: TunedStart = {
      ...{ rows: groups, cols: type.sub, axis: 1, maxCode: type.high - type.low },
      ...{ zeroPoint: type.minima ? 'float' : 'symmetric', codesOnly: type.meta !== undefined },
      ...{ weights: own, scale, zero, solved: { chosen: chosenOf(blocks), values } },
      settle: (moved, shifted) => settled(type, blocks, moved, shifted, machine),
    };
    return start;
  },
  // Codes that are kept are those of the weights.
  solve: async (layer, floats, ...run) => (layer.form.kept ? floats : (await solved(layer, floats, ...run)).values),
};

/** Fits the blocks of a layer, or of some of its rows, as `encodeRows` does. @throws {HqqError} as that */
async function solved(
  { site, form }: PlannedLayer<BlockForm>,
  floats: Float32Array,
  importance: Float32Array | undefined,
  machine: Machine,
): Promise<{ readonly blocks: Uint8Array; readonly values: Float32Array<ArrayBuffer> }> {
  const { id } = typeNamed(form.type);
  const cols = form.shape[1];
  const rows = floats.length / cols;
  const { blocks, values } = allocating('the blocks of a layer', () => ({
    blocks: new Uint8Array(bytesOf({ ...form, shape: [rows, cols] })),
    values: new Float32Array(floats.length),
  }));
  const { backend, threads } = machine;
  const compute: Parameters<typeof fitBlocks>[3]['compute'] = (operation, args) =>
    runTask(backend, operation, args, machine);
  const weights = { data: floats, dtype: 'float32', rows, cols } as const;
  const { badIndex } = await fitBlocks({ site, form }, weights, blocks, { threads, importance, compute });
  if (badIndex >= 0) throw nonFiniteError(plain(site.weight.name), floats, 'float32', badIndex, badIndex, cols);
  await compute('decodeBlocks', { type: id, blocks, out: values, threads });
  return { blocks, values };
}

const chosenOf = (blocks: Uint8Array) => ({ codes: blocks, scale: NO_FLOATS, zero: NO_FLOATS });

/** What blocks hold: codes from 0 on, scales and zeros, and the numbers that come of them. */
interface Split {
  readonly codes: Uint8Array;
  readonly scale: Float32Array;
  readonly zero: Float32Array;
  readonly values: Float32Array;
}

/**
 * Scales and zeros of codes from 0 on, of those that `splitBlocks` gives. Where a scale is zero, which it gives as 1 with codes of 0, a sub-block is one
 * number, whatever its codes: its weights are that number, whose code is 0, so that none moves. `values` tell it from a scale that is 1: they are 0.
 */
function* levelled(type: BlockType, { codes, scale, zero, values }: Split, weights: Float32Array): Steps<void> {
  const { sub, low, high, minima, meta } = type;
  for (let group = 0; group < scale.length; group++) {
    const from = group * sub;
    const isFlat = scale[group] === 1 && codes.subarray(from, from + sub).every((code) => code === 0);
    if (!minima) {
      zero[group] = -low;
      if (isFlat && values[from] === 0) scale[group] = 0;
    } else if (isFlat && meta === undefined) {
      scale[group] = -zero[group]! / high; // its highest code is the number
      zero[group] = 0;
    } else if (isFlat) weights.fill(-zero[group]!, from, from + sub);
    if (group % AT_ONCE === 0) yield;
  }
}

/** Scales and zeros as blocks store them. */
async function settled(
  type: BlockType,
  before: Uint8Array,
  scale: Float32Array,
  zero: Float32Array,
  machine: Machine,
): Promise<SettledScales> {
  const halves = type.meta === undefined ? await inTurns(halvesOf(type, scale, zero), machine.signal) : undefined;
  const stored = halves ?? { scale, zero };
  return {
    scale: stored.scale,
    zero: stored.zero,
    async store(codes, values): Promise<TunedResult> {
      const blocks = allocating('the blocks of a layer', () => before.slice());
      await inTurns(packed(type, blocks, codes, halves), machine.signal);
      const args = { type: type.id, blocks, out: values, threads: machine.threads };
      await runTask(machine.backend, 'decodeBlocks', args, machine);
      return { chosen: chosenOf(blocks), values };
    },
  };
}

/** The two numbers of each block, as bits, and what they stand for. */
interface Halves {
  readonly d: Uint16Array;
  readonly m: Uint16Array;
  readonly scale: Float32Array;
  readonly zero: Float32Array;
}

function* halvesOf({ minima }: BlockType, scale: Float32Array, zero: Float32Array): Steps<Halves> {
  const { length } = scale;
  const halves: Halves = allocating('the scales of a layer', () => ({
    d: new Uint16Array(length),
    m: new Uint16Array(minima ? length : 0),
    scale: new Float32Array(length),
    zero: minima ? new Float32Array(length) : zero,
  }));
  for (let i = 0; i < length; i++) {
    halves.d[i] = halfOfFloat(scale[i]!);
    const stored = (halves.scale[i] = floatOfHalf(halves.d[i]!));
    if (minima) {
      halves.m[i] = halfOfFloat(Math.fround(-zero[i]! * scale[i]!));
      halves.zero[i] = stored === 0 ? 0 : -floatOfHalf(halves.m[i]!) / stored;
    }
    if (i % SCALES_AT_ONCE === 0) yield;
  }
  return halves;
}

/** Puts codes into blocks, and the numbers of each. */
function* packed(type: BlockType, blocks: Uint8Array, codes: Uint8Array, halves: Halves | undefined): Steps<void> {
  const parts = newParts(type);
  const first = type.low + type.bias;
  for (let block = 0; block * type.bytes < blocks.length; block++) {
    const bytes = blocks.subarray(block * type.bytes, (block + 1) * type.bytes);
    unpackBlock(type, bytes, parts);
    const at = block * type.weights;
    for (let i = 0; i < type.weights; i++) parts.codes[i] = codes[at + i]! + first; // bytes with a sign wrap around
    if (halves) {
      parts.d = halves.d[block]!;
      if (type.minima) parts.m = halves.m[block]!;
    }
    packBlock(type, parts, bytes);
    if (block % AT_ONCE === 0) yield;
  }
}
