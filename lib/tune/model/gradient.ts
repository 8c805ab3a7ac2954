import { inTurns } from '../../files/event-loop.js';
import type { BlockSource } from '../../runtime/source/block-source.js';
import { recordHead } from '../tape/head.js';
import type { Room } from '../tape/room.js';
import type { Floats } from '../tape/spans.js';
import { recordBlock } from '../tape/tape.js';
import { divergence } from './divergence.js';

/** Bytes that the logits of some rows take: rows are read by the head in pieces. */
const LOGITS_BYTES = 32 * 1024 * 1024;

/** Some texts, side by side. */
export interface Batch {
  readonly lengths: readonly number[];
  /** `[rows, hiddenSize]`: what goes into the first block. */
  readonly input: Floats;
  /** `[rows, hiddenSize]`: what comes out of the last block of the model of floats. */
  readonly wanted: Floats;
}

/** A model's weights as they are, block by block. */
export interface BlockWeights {
  /** The weights of block `index` that differ from the source's, by module: arrays that are valid until the next call. */
  weightsOf(index: number): Promise<ReadonlyMap<string, Floats>>;
  /** Is given the gradients of these weights, in arrays that are valid until it settles; from the last block to the first. */
  take?(index: number, gradients: ReadonlyMap<string, Floats>): Promise<void>;
}

interface GradientRun {
  readonly signal: AbortSignal | undefined;
  readonly room: Room;
}

/**
 * The mean divergence of a model's probabilities from those of the model of floats, in nats for each token that has one before it; and the
 * gradients of its weights, where `take` wants them. One block is in memory at a time, and what went into each of them: on the way back it is
 * computed once more.
 *
 * @throws {HqqError} as `BlockSource.block`; the signal's reason
 */
export async function modelDivergence(
  source: BlockSource,
  { lengths, input, wanted }: Batch,
  { weightsOf, take }: BlockWeights,
  { signal, room }: GradientRun,
): Promise<number> {
  const inputs: Floats[] = [];
  const hidden = input.slice();
  const record = async (index: number, ofInput: boolean) => {
    const block = await source.block(index, { signal });
    return recordBlock(block, { lengths, weights: await weightsOf(index), ofInput }, room);
  };
  for (let index = 0; index < source.count; index++) {
    const tape = await record(index, false);
    if (take) inputs.push(hidden.slice());
    tape.hidden.set(hidden);
    await tape.forward({ signal });
    hidden.set(tape.hidden);
    room.free();
  }
  const { loss, gradient } = await headDivergence(
    source,
    { lengths, hidden, wanted },
    { signal, room },
    take !== undefined,
  );
  for (let index = source.count - 1; take && index >= 0; index--) {
    const tape = await record(index, index > 0);
    tape.hidden.set(inputs.pop()!);
    await tape.forward({ signal });
    tape.gradient.set(gradient);
    await tape.backward({ signal });
    gradient.set(tape.gradient);
    await take(index, tape.weightGradients);
    room.free();
  }
  return loss;
}

/** The same of what comes out of the last block: the divergence, and its gradient by that. First tokens of texts do not count. */
async function headDivergence(
  source: BlockSource,
  {
    lengths,
    hidden,
    wanted,
  }: { readonly lengths: readonly number[]; readonly hidden: Floats; readonly wanted: Floats },
  { signal, room }: GradientRun,
  back: boolean,
): Promise<{ readonly loss: number; readonly gradient: Floats }> {
  const { hiddenSize, vocabSize } = source.config;
  const head = await source.head({ signal });
  const rows = hidden.length / hiddenSize;
  const most = Math.max(1, Math.floor(LOGITS_BYTES / (vocabSize * Float32Array.BYTES_PER_ELEMENT)));
  const piece = Math.min(most, rows);
  const tape = recordHead(head, piece, room);
  const target = room.take(piece * vocabSize);
  const counted = rows - lengths.length;
  const firsts = new Set(lengths.map((_, i) => lengths.slice(0, i).reduce((sum, length) => sum + length, 0)));
  const gradient = new Float32Array(hidden.length);
  let loss = 0;
  for (let row = 0; row < rows; row += piece) {
    const from = Math.min(row, rows - piece); // the last piece is as long as the others
    const cut = (of: Floats, width: number) => of.subarray(from * width, (from + piece) * width);
    tape.hidden.set(cut(wanted, hiddenSize));
    await tape.forward({ signal });
    target.set(tape.logits);
    tape.hidden.set(cut(hidden, hiddenSize));
    await tape.forward({ signal });
    for (let i = 0; i < piece; i++) {
      const at = <T extends Floats>(of: T) => of.subarray(i * vocabSize, (i + 1) * vocabSize);
      if (from + i < row || firsts.has(from + i)) {
        at(tape.logitsGradient).fill(0);
        continue;
      }
      const own = { logits: at(tape.logits), wanted: at(target), gradient: at(tape.logitsGradient) };
      loss += (await inTurns(divergence(own, vocabSize, 1 / counted), signal)) / counted;
    }
    if (!back) continue;
    await tape.backward({ signal });
    for (let i = Math.max(row, from); i < from + piece; i++) {
      const own = tape.gradient.subarray((i - from) * hiddenSize, (i - from + 1) * hiddenSize);
      gradient.set(own, i * hiddenSize);
    }
  }
  room.free();
  return { loss, gradient };
}
