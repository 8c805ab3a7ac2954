import { type QuantSums, readStats } from '../../compute/arguments.js';
import { bitsOf } from '../../compute/floats.js';
import { metaJob } from '../../compute/metadata.js';
import type { Range } from '../../containers/ranges.js';
import type { Scratch } from '../../containers/scratch.js';
import { numbersOf } from '../../containers/stored-types.js';
import { tameMeta } from '../../matrix/metadata.js';
import { allocating } from '../../messages/allocating.js';
import { quote } from '../../messages/text.js';
import type { GroupedChunk } from '../chunks.js';
import type { Encoded, Survey, WholeTensor, WorkRun } from '../scheme.js';
import { byteMetaTensors } from './byte-meta.js';
import { chunkArgs, codePiece, demandFinite, solveChunk } from './encode.js';
import { groupsOf, type HqqLayer, hasByteMeta } from './state-dict.js';

/**
 * Scales and zeros that are quantized themselves are so with those of the whole layer, and codes are chosen after that: so all
 * weights are quantized once for their scales and zeros, which are kept, some ten bytes a group, and then encoded with them.
 */
export function surveyOf(layer: HqqLayer, memory: Scratch): Survey<GroupedChunk> | undefined {
  return hasByteMeta(layer.form) ? new ByteMetaSurvey(layer, memory) : undefined;
}

class ByteMetaSurvey implements Survey<GroupedChunk> {
  readonly #layer: HqqLayer;
  readonly #memory: Scratch;
  readonly #scale: Float32Array<ArrayBuffer>;
  readonly #zero: Float32Array<ArrayBuffer>;
  #iterations = 0;

  constructor(layer: HqqLayer, memory: Scratch) {
    this.#layer = layer;
    this.#memory = memory;
    const { groups } = layer.form.geometry;
    this.#scale = memory.take('scale', Float32Array<ArrayBuffer>, groups);
    this.#zero = memory.take('zero', Float32Array<ArrayBuffer>, groups);
  }

  async look(chunk: GroupedChunk, bytes: Uint8Array, run: WorkRun): Promise<QuantSums> {
    const { site, form } = this.#layer;
    const { scale, zero, sums } = await solveChunk(this.#layer, chunk, bytes, run);
    if (sums.badIndex >= 0) return sums;
    const { axis, nbits, referenceGuards, zeroPoint } = form.config;
    const { rows, cols } = chunk;
    const weights = bitsOf(bytes, numbersOf(site.weight.type)!);
    if (!referenceGuards && zeroPoint === 'float') tameMeta(scale, zero, nbits, { weights, rows, cols, axis });
    place(scale, chunk.groups, this.#scale);
    place(zero, chunk.groups, this.#zero);
    this.#iterations = Math.max(this.#iterations, sums.iterations);
    return sums;
  }

  async settle(run: WorkRun): Promise<readonly WholeTensor[]> {
    const { site, form } = this.#layer;
    demandFinite(site.weight.name, 'scale', this.#scale);
    demandFinite(site.weight.name, 'zero', this.#zero);
    const what = `the scales of ${quote(site.weight.name)}`;
    const { meta, steps } = allocating(what, () =>
      metaJob(this.#scale, this.#zero, form.config, run.threads, (kind, count) =>
        this.#memory.take(`codes of ${kind}`, Uint8Array<ArrayBuffer>, count),
      ),
    );
    await run.compute('sequence', { steps });
    return byteMetaTensors(site.name, groupsOf(form), meta);
  }

  async encode(chunk: GroupedChunk, bytes: Uint8Array, run: WorkRun): Promise<Encoded> {
    const args = chunkArgs(this.#layer, chunk, bytes, run);
    take(this.#scale, chunk.groups, args.scale);
    take(this.#zero, chunk.groups, args.zero);
    await run.compute('encode', args);
    const sums = { ...readStats(args.stats), iterations: this.#iterations };
    return { pieces: [codePiece(this.#layer, chunk, args.packed)], sums };
  }
}

/** Puts numbers that are of `ranges`, one after the other, where they belong. */
function place(from: Float32Array, ranges: readonly Range[], to: Float32Array): void {
  let offset = 0;
  for (const { at, count } of ranges) {
    to.set(from.subarray(offset, (offset += count)), at);
  }
}

/** Takes the numbers of `ranges`, one after the other. */
function take(from: Float32Array, ranges: readonly Range[], to: Float32Array): void {
  let offset = 0;
  for (const { at, count } of ranges) {
    to.set(from.subarray(at, at + count), offset);
    offset += count;
  }
}
