import type { TensorSource } from '../containers/container.js';
import type { QuantConfig } from '../matrix/config.js';
import { HqqError } from '../messages/errors.js';
import { plain } from '../messages/text.js';
import { resolveOptions } from '../models/options.js';
import { changedEnvelope, planModel as planConversion, shardLayout } from '../models/quantize/plan.js';
import { schemeNamed } from '../schemes/list.js';

// What may become of each part of a model, and what it costs: as the conversion itself would store it.

/** One of the ways in which layers may be quantized. */
export interface Candidate {
  /** Its place among them. */
  readonly index: number;
  readonly nbits: number;
  /** What a plan says of a layer that gets it. */
  readonly override: QuantConfig;
  /** Whether importance counts: as where a model is quantized, 8 bits have none. */
  readonly weighed: boolean;
  /** The options of a layer, with defaults and with what fits it. */
  readonly configOf: (module: string) => QuantConfig;
}

/** Layers that get the same bits, since engines run them as one. */
export interface Unit {
  readonly block: number;
  readonly modules: readonly string[];
  readonly weights: number;
  /** By candidate: bits as `targetBits` counts them, and the bytes that are stored. */
  readonly bits: readonly number[];
  readonly bytes: readonly number[];
}

/** What there is to choose from. */
export interface Choices {
  /** Fingerprint of the model. */
  readonly digest: string;
  /** In groups of the first size all widths, narrow ones first; then in groups of the next. */
  readonly candidates: readonly Candidate[];
  /** How many widths there are, in groups of each size. */
  readonly widths: number;
  readonly units: readonly Unit[];
  /** Bytes of the output beside those of the units. */
  readonly otherBytes: number;
}

/** What a layer becomes with one candidate. */
interface Fitted {
  readonly config: QuantConfig & { readonly groupSize?: number | null; readonly metaBits?: number };
  readonly bytes: number;
  readonly weights: number;
}

/**
 * @param widths Narrow ones first.
 * @param groupSizes `[undefined]`: the default, which gives way where it does not fit.
 * @throws {HqqError} `ERR_GROUP_SIZE`, `ERR_INVALID_OPTION`; `ERR_CHECKPOINT_CONTENT` for a model whose blocks are not all of it
 */
export async function choicesOf(
  source: TensorSource,
  config: QuantConfig,
  {
    widths,
    groupSizes,
    units: modulesOf,
    signal,
  }: {
    readonly widths: readonly number[];
    readonly groupSizes: readonly (number | undefined)[];
    /** Block by block, the modules that get the same bits. */
    readonly units: readonly (readonly (readonly string[])[])[];
    readonly signal: AbortSignal | undefined;
  },
): Promise<Choices> {
  const candidates: Candidate[] = [];
  const fitted: ReadonlyMap<string, Fitted>[] = [];
  let [digest, otherBytes] = ['', 0];
  const wanted = new Set(modulesOf.flat(2));
  for (const groupSize of groupSizes) {
    for (const nbits of widths as readonly NonNullable<QuantConfig['nbits']>[]) {
      const override = { nbits, ...(groupSize !== undefined && { groupSize }) };
      const plan = await planConversion(source, resolveOptions({ ...config, ...override, signal }));
      const scheme = schemeNamed(plan.scheme);
      const layers = new Map<string, Fitted>();
      for (const { site, form } of plan.shards.flatMap((shard) => shard.layers)) {
        const weights = site.shape[0] * site.shape[1];
        // In a GGUF file they have other names.
        const module = [site.name, ...(site.nodes ?? [])].find((name) => wanted.has(name)) ?? site.name;
        layers.set(module, { config: form.config, bytes: scheme.summarize(form).bytes, weights });
      }
      if (candidates.length === 0) {
        digest = plan.digest;
        const envelope = changedEnvelope(source, plan);
        for (const shard of plan.shards) otherBytes += (await shardLayout(source, envelope, plan, shard)).fileSize;
        for (const { bytes } of layers.values()) otherBytes -= bytes;
      }
      candidates.push({
        ...{ index: candidates.length, nbits, override, weighed: nbits !== 8 },
        configOf: (module) => layers.get(module)!.config,
      });
      fitted.push(layers);
    }
  }
  const units = modulesOf.flatMap((own, block) =>
    own.map((modules) => unitOf(source.path, block, modules, fitted, widths.length)),
  );
  return { digest, candidates, widths: widths.length, units, otherBytes };
}

/** Widths `first` to `last` alone, both as places among them, in groups of all sizes. */
export function narrowed(choices: Choices, first: number, last: number): Choices {
  const place = (c: number) => c % choices.widths;
  const keep = <T>(list: readonly T[]) => list.filter((_one, c) => place(c) >= first && place(c) <= last);
  return {
    ...choices,
    candidates: keep(choices.candidates).map((candidate, index) => ({ ...candidate, index })),
    widths: last - first + 1,
    units: choices.units.map((unit) => ({ ...unit, bits: keep(unit.bits), bytes: keep(unit.bytes) })),
  };
}

function unitOf(
  path: string,
  block: number,
  modules: readonly string[],
  fitted: readonly ReadonlyMap<string, Fitted>[],
  widths: number,
): Unit {
  for (const module of modules) {
    if (fitted.every((layers) => layers.has(module))) continue;
    const why = /\.experts\.\d+\./.test(module) ? 'have experts that are tensors of their own' : 'are floats';
    const message = `Expected ${plain(module)} of ${plain(path)} to be a layer that is quantized. Plans are for models whose blocks ${why}.`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', message);
  }
  const sum = (part: (module: string) => number) => modules.reduce((total, module) => total + part(module), 0);
  return {
    ...{ block, modules },
    weights: sum((module) => fitted[0]!.get(module)!.weights),
    // Scales and zeros of the first group size come with the width; those of others are set off against them.
    bits: fitted.map((layers, c) =>
      sum((module) => {
        const { config, weights } = layers.get(module)!;
        const base = fitted[c % widths]!.get(module)!;
        return weights * config.nbits! + metaBitsOf(layers.get(module)!) - metaBitsOf(base);
      }),
    ),
    bytes: fitted.map((layers) => sum((module) => layers.get(module)!.bytes)),
  };
}

/** Bits of all scales and zeros of a layer. */
function metaBitsOf({ config: { groupSize, metaBits = 16 }, weights }: Fitted): number {
  return 2 * metaBits * Math.round(weights / groupSize!);
}
