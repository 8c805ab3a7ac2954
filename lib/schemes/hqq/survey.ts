import { type QuantSums, readStats } from '../../compute/arguments.js';
import { bitsOf } from '../../compute/floats.js';
import { metaJob } from '../../compute/metadata.js';
import type { Range } from '../../containers/ranges.js';
import { numbersOf } from '../../containers/stored-types.js';
import { tameMeta } from '../../matrix/metadata.js';
import type { MetaCodes, QuantizedMeta } from '../../matrix/weight.js';
import { allocating } from '../../messages/allocating.js';
import { quote } from '../../messages/text.js';
import type { GroupedChunk } from '../chunks.js';
import type { Encoded, Survey, WholeTensor, WorkRun } from '../scheme.js';
import type { SurveyMemory } from '../survey-memory.js';
import { byteMetaTensors } from './byte-meta.js';
import { chunkArgs, codePiece, demandFinite, packChosen, solveChunk, sumsOf } from './encode.js';
import { setInPieces } from './set-in-pieces.js';
import { groupsOf, type HqqLayer, hasByteMeta } from './state-dict.js';
import { widenPart } from './wide-meta.js';

/**
 * Scales and zeros that are quantized themselves are so with those of the whole layer, and codes are chosen after that: so all
 * weights are quantized once for their scales and zeros, which are kept, and then encoded with them. Eight bytes a group till all
 * are known, then two.
 */
export function surveyOf(layer: HqqLayer, memory: SurveyMemory): Survey<GroupedChunk> | undefined {
  return hasByteMeta(layer.form) ? new ByteMetaSurvey(layer, memory) : undefined;
}

class ByteMetaSurvey implements Survey<GroupedChunk> {
  readonly #layer: HqqLayer;
  readonly #memory: SurveyMemory;
  readonly #scale: Float32Array<ArrayBuffer>;
  readonly #zero: Float32Array<ArrayBuffer>;
  /** From `settle` on. */
  #meta: Required<QuantizedMeta> | undefined;
  #iterations = 0;

  constructor(layer: HqqLayer, memory: SurveyMemory) {
    this.#layer = layer;
    this.#memory = memory;
    const { groups } = layer.form.geometry;
    this.#scale = memory.looks.take('scale', Float32Array<ArrayBuffer>, groups);
    this.#zero = memory.looks.take('zero', Float32Array<ArrayBuffer>, groups);
  }

  async look(chunk: GroupedChunk, bytes: Uint8Array, run: WorkRun): Promise<QuantSums> {
    const { site, form } = this.#layer;
    const { scale, zero, sums } = await solveChunk(this.#layer, chunk, bytes, run);
    if (sums.badIndex >= 0) return sums;
    const { axis, nbits, referenceGuards, zeroPoint } = form.config;
    const { rows, cols } = chunk;
    const weights = bitsOf(bytes, numbersOf(site.weight.type)!);
    if (!run.chosen && !referenceGuards && zeroPoint === 'float')
      tameMeta(scale, zero, nbits, { weights, rows, cols, axis });
    await this.#memory.free;
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
    const { looks, kept } = this.#memory;
    const { meta, steps } = allocating(what, () =>
      metaJob(
        ...([this.#scale, this.#zero, form.config, run.threads] as const),
        (kind, count) => kept.take(`codes of ${kind}`, Uint8Array<ArrayBuffer>, count),
        (values, codes, quantize) => setInPieces(values, codes, quantize, looks),
      ),
    );
    for (const { operation, args } of steps) await run.compute(operation, args);
    this.#meta = meta;
    return byteMetaTensors(site.name, groupsOf(form), meta);
  }

  async encode(chunk: GroupedChunk, bytes: Uint8Array, run: WorkRun): Promise<Encoded> {
    const { args, packed, scale, zero } = chunkArgs(this.#layer, chunk, bytes, run);
    const part = run.chosen && (await packChosen(this.#layer, chunk, args, run));
    widenRanges(this.#meta!.scale, chunk.groups, scale);
    widenRanges(this.#meta!.zero, chunk.groups, zero);
    if (part) {
      const sums = await sumsOf(this.#layer, chunk, bytes, part, run.signal);
      return { pieces: [codePiece(this.#layer, chunk, packed)], sums };
    }
    await run.compute('encode', args);
    const sums = { ...readStats(args.stats), iterations: this.#iterations };
    return { pieces: [codePiece(this.#layer, chunk, packed)], sums };
  }
}

/** Puts numbers that are of `ranges`, one after the other, where they belong. */
function place(from: Float32Array, ranges: readonly Range[], to: Float32Array): void {
  let offset = 0;
  for (const { at, count } of ranges) {
    to.set(from.subarray(offset, (offset += count)), at);
  }
}

/** Widens the codes of `ranges`, one after the other. */
function widenRanges({ codes, ...sets }: MetaCodes, ranges: readonly Range[], to: Float32Array): void {
  let offset = 0;
  for (const { at, count } of ranges) {
    widenPart(codes.subarray(at, at + count), at, sets, to, offset);
    offset += count;
  }
}
