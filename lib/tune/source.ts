import { encoderReader, languageReader, type Reader } from '../calibrate/reader.js';
import type { RunOptions } from '../matrix/weight.js';
import { DenseLinear } from '../runtime/blocks/linear.js';
import type { Tap } from '../runtime/blocks/tap.js';
import { Encoder, isEncoderModel } from '../runtime/encoder/encoder.js';
import type { EncoderBlock } from '../runtime/encoder/encoder-block.js';
import { type BlockSource, openMergedSource } from '../runtime/source/block-source.js';
import type { OpenBlock } from '../runtime/source/open-block.js';
import { recordEncoderBlock } from './tape/encoder-tape.js';
import { type Recorded, recordBlock, type Tape } from './tape/tape.js';

interface SourceRun {
  readonly signal?: AbortSignal | undefined;
}

/** A block that is tuned: of a language model, or of an encoder. */
export interface TunedBlock {
  readonly index: number;
  readonly linears: readonly { readonly module: string; readonly shape: readonly [number, number] }[];
  /** A copy of the weight of a layer. */
  weight(module: string, run: RunOptions): Promise<Float32Array>;
  /** Runs texts in place. */
  forward(texts: readonly Float32Array[], run: SourceRun & { readonly tap?: Tap | undefined }): Promise<void>;
  /** The same block with other weights in some of its layers. */
  replace(weights: Readonly<Record<string, Float32Array>>, run: SourceRun): Promise<TunedBlock>;
  record(recorded: Recorded): Tape;
}

/** A model whose blocks are tuned one after the other. */
export interface TunedSource extends Pick<Reader, 'path' | 'kind' | 'count' | 'close'> {
  readonly config: Reader['config'] & { readonly hiddenSize: number };
  /**
   * First rows of a text of which no error is counted: what attention of language models leaves at the first token is of a size of its own,
   * and nothing is learnt from it.
   */
  readonly uncounted: number;
  /** What reads its texts. */
  readonly reader: Reader;
  /** Undefined: an encoder, which gives no probabilities. */
  readonly language: BlockSource | undefined;
  embed(ids: Uint32Array, run: SourceRun): Promise<Float32Array>;
  /** One block is open at a time. */
  block(index: number, run: SourceRun): Promise<TunedBlock>;
}

/** @param options.adapter A folder of one that is merged into the model. @throws {HqqError} as `openBlockSource` and `Encoder.open` */
export async function openTunedSource(
  path: string,
  {
    adapter,
    ...options
  }: SourceRun & { readonly threads?: number | undefined; readonly adapter?: string | undefined } = {},
): Promise<TunedSource> {
  return (await isEncoderModel(path))
    ? encoderSource(await Encoder.open(path, options, adapter))
    : languageSource(await openMergedSource(path, adapter, options));
}

function languageSource(source: BlockSource): TunedSource {
  const reader = languageReader(source);
  return {
    ...{ ...reader, config: source.config, uncounted: 1, reader, language: source },
    embed: (ids, run) => source.embed(ids, run),
    block: async (index, run) => languageBlock(await source.block(index, run)),
  };
}

const languageBlock = (block: OpenBlock): TunedBlock => ({
  ...{ index: block.index, linears: block.linears },
  weight: (module, run) => block.weight(module, run),
  forward: async (texts, run) => void (await block.forward(texts, { ...run, out: texts })),
  replace: async (weights, run) => languageBlock(await block.replace(weights, run)),
  record: (recorded) => recordBlock(block, recorded),
});

function encoderSource(encoder: Encoder): TunedSource {
  const reader = encoderReader(encoder);
  return {
    ...{ ...reader, config: encoder.config, uncounted: 0, reader, language: undefined },
    embed: (ids, run) => encoder.embed(ids, run),
    block: async (index, run) => encoderBlock(await encoder.block(index, run), index),
  };
}

function encoderBlock(block: EncoderBlock, index: number): TunedBlock {
  const linearOf = (module: string) => block.linears.find((linear) => linear.module === module)!.linear;
  const shapeOf = (module: string) => {
    const { outFeatures, inFeatures } = linearOf(module);
    return [outFeatures, inFeatures] as const;
  };
  return {
    index,
    linears: block.linears.map(({ module }) => ({ module, shape: shapeOf(module) })),
    weight: (module, run) => linearOf(module).weights(run),
    async forward(texts, run) {
      for (const text of texts) await block.run(text, run);
    },
    async replace(weights) {
      const replaced = Object.entries(weights).map(([module, values]) => {
        return [module, new DenseLinear(values, shapeOf(module), linearOf(module).bias)] as const;
      });
      return encoderBlock(block.with(new Map(replaced)), index);
    },
    record: (recorded) => recordEncoderBlock(block, recorded),
  };
}
