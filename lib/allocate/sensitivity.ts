import { quantize } from '../compute/quantize.js';
import { inTurns, yieldIfDue } from '../files/event-loop.js';
import type { QuantizedTensor } from '../matrix/weight.js';
import type { LanguageModelConfig } from '../runtime/config/model-config.js';
import type { BlockSource } from '../runtime/source/block-source.js';
import type { OpenBlock } from '../runtime/source/open-block.js';
import type { OpenHead } from '../runtime/source/open-head.js';
import type { Candidate } from './candidates.js';
import { Truth } from './divergence.js';

/** Bytes of what lies between blocks that probes may take at once: more of them run through the model in several passes. */
const STREAM_BYTES = 512 * 1024 * 1024;

/** Bytes of logits that are in memory at once, of the model and again of a probe. */
const LOGIT_BYTES = 16 * 1024 * 1024;

/** A model of which some layers are quantized, and others are not. */
export interface Probe {
  /** The first block that has some. */
  readonly first: number;
  /** By module: what the layer becomes. */
  readonly layers: ReadonlyMap<string, Candidate>;
}

/** How probes run. */
export interface Probing {
  /** What the errors of inputs count, by module. */
  readonly importance: ReadonlyMap<string, Float32Array>;
  readonly threads?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called whenever a block has run, or a head, for so many probes (and the model itself). */
  readonly advance: (count: number) => void;
}

/** A probe on its way through the blocks: one array a text. */
interface Stream {
  readonly probe: Probe;
  readonly texts: Float32Array[];
}

/** How often `advance` will count. */
export function workOf(source: BlockSource, ids: readonly Uint32Array[], probes: readonly Probe[]): number {
  return passesOf(source, ids, probes).reduce((sum, pass) => {
    return sum + source.count + 1 + pass.reduce((own, { first }) => own + source.count - first + 1, 0);
  }, 0);
}

/**
 * Mean Kullback-Leibler divergence, in nats, of the next tokens of each probe from those of the model, on the same ids. A probe is the
 * model itself up to its first block, and is run from there on; all probes go through the blocks together, so that each block is read
 * once for as many of them as memory holds.
 */
export async function divergences(
  source: BlockSource,
  ids: readonly Uint32Array[],
  probes: readonly Probe[],
  probing: Probing,
): Promise<ReadonlyMap<Probe, number>> {
  const found = new Map<Probe, number>();
  for (const pass of passesOf(source, ids, probes)) {
    for (const [probe, value] of await runPass(source, ids, pass, probing)) found.set(probe, value);
  }
  return found;
}

function passesOf({ config }: BlockSource, ids: readonly Uint32Array[], probes: readonly Probe[]): Probe[][] {
  const rows = ids.reduce((sum, { length }) => sum + length, 0);
  const bytes = rows * config.hiddenSize * Float32Array.BYTES_PER_ELEMENT;
  const most = Math.max(1, Math.floor(STREAM_BYTES / bytes));
  const sorted = [...probes].sort((a, b) => a.first - b.first);
  return Array.from({ length: Math.ceil(sorted.length / most) }, (_, i) => sorted.slice(i * most, (i + 1) * most));
}

async function runPass(
  source: BlockSource,
  ids: readonly Uint32Array[],
  probes: readonly Probe[],
  probing: Probing,
): Promise<ReadonlyMap<Probe, number>> {
  const { signal, advance } = probing;
  const truth: Float32Array[] = [];
  for (const text of ids) truth.push(await source.embed(text, { signal }));
  const streams: Stream[] = [];
  for await (const block of source.blocks({ signal })) {
    const beginning = probes.filter(({ first }) => first === block.index);
    const plain = await runReplaced(block, [...streams, ...beginning.map((probe) => ({ probe, texts: truth }))], {
      ...probing,
      begun: (stream) => streams.push(stream),
    });
    const texts = [...plain.flatMap((stream) => stream.texts), ...truth];
    await block.forward(texts, { out: texts, signal });
    advance(1 + plain.length);
  }
  const head = await source.head({ signal });
  return compare(head, truth, streams, { config: source.config, ...probing });
}

/** Runs the streams that have layers of their own in a block. Gives the others. */
async function runReplaced(
  block: OpenBlock,
  streams: readonly Stream[],
  { importance, threads, signal, advance, begun }: Probing & { readonly begun: (stream: Stream) => void },
): Promise<readonly Stream[]> {
  const made = new Map<string, QuantizedTensor>();
  const plain: Stream[] = [];
  for (const { probe, texts } of streams) {
    const weights: Record<string, QuantizedTensor> = {};
    for (const { module, shape } of block.linears) {
      const candidate = probe.layers.get(module);
      if (candidate === undefined) continue;
      const key = `${candidate.index} ${module}`;
      let quantized = made.get(key);
      if (quantized === undefined) {
        const data = await block.weight(module, { threads, signal });
        const weigh = candidate.weighed ? importance.get(module) : undefined;
        const config = candidate.configOf(module);
        quantized = await quantize({ data, dtype: 'float32', shape }, config, {
          threads,
          signal,
          ...(weigh && { importance: weigh }),
        });
        made.set(key, quantized);
      }
      weights[module] = quantized;
    }
    if (Object.keys(weights).length === 0) {
      plain.push({ probe, texts });
      continue;
    }
    const replaced = await block.replace(weights, { threads, signal });
    if (probe.first === block.index) begun({ probe, texts: await replaced.forward(texts, { signal }) });
    else await replaced.forward(texts, { out: texts, signal });
    advance(1);
  }
  return plain;
}

async function compare(
  head: OpenHead,
  truth: readonly Float32Array[],
  streams: readonly Stream[],
  { config: { vocabSize, hiddenSize: width }, signal, advance }: Probing & { readonly config: LanguageModelConfig },
): Promise<ReadonlyMap<Probe, number>> {
  const sums = new Map(streams.map(({ probe }) => [probe, 0]));
  const most = Math.max(1, Math.floor(LOGIT_BYTES / (vocabSize * Float32Array.BYTES_PER_ELEMENT)));
  let rowsDone = 0;
  for (const [t, text] of truth.entries()) {
    const rows = text.length / width;
    for (let from = 0; from < rows; from += most) {
      const to = Math.min(from + most, rows);
      const plain = await head.forward(text.subarray(from * width, to * width), { signal });
      const own = await inTurns(Truth.of(plain, vocabSize), signal);
      const logits = new Float32Array((to - from) * vocabSize);
      for (const { probe, texts } of streams) {
        await head.forward(texts[t]!.subarray(from * width, to * width), { out: logits, signal });
        for (let row = 0; row < to - from; row++) {
          const cut = logits.subarray(row * vocabSize, (row + 1) * vocabSize);
          sums.set(probe, sums.get(probe)! + own.divergence(row, cut));
          await yieldIfDue();
          signal?.throwIfAborted();
        }
      }
      rowsDone += to - from;
    }
  }
  advance(1 + streams.length);
  return new Map([...sums].map(([probe, sum]) => [probe, Math.max(sum / rowsDone, 0)]));
}
