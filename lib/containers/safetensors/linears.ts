import type { Doubt, LinearSite, OtherTensor, TensorEntry } from '../container.js';
import { FLATTENED } from '../experts.js';
import type { KnownModules, ModuleKind } from '../known-modules.js';
import { layerOf, moduleOf } from '../names.js';
import { numbersOf, type StoredType } from '../stored-types.js';
import { lookupsOf } from './lookups.js';
import { stackOf } from './stacks.js';
import { isHead, tieOf } from './tied.js';

// Which tensors of a Hugging Face model are the weights of linear layers, and what keeps the others from being so.

/** Models with layers that are `Conv1D`: stored [in, out], and not nn.Linear. */
const CONV1D_MODELS: ReadonlySet<unknown> = new Set([
  'gpt2',
  'openai-gpt',
  'imagegpt',
  'decision_transformer',
  'clvp',
  'clvp_decoder',
  'convbert',
]);

/** What `Conv1D` layers are called. Other models have nn.Linear layers of these names. */
const CONV1D_LEAVES: readonly string[] = ['c_attn', 'q_attn', 'c_proj', 'c_fc'];

/** Models whose routers are bare parameters named like a layer (transformers 4.56): not nn.Linear either. */
const PARAMETER_ROUTERS: ReadonlySet<unknown> = new Set([
  'deepseek_v2',
  'deepseek_v3',
  'kimi_k2',
  'dots1',
  'glm4_moe',
  'glm4v_moe',
  'glm4v_moe_text',
  'gpt_oss',
]);

/** A part of a module's path that makes all below it an embedding. */
const EMBEDDING = /^(embed.*|.*(embedding|embeddings|embed))$/i;
/** Last part of the path of what is an embedding for certain; `embedding_hidden_mapping_in` for one is a linear layer. */
const SURELY_EMBEDDING =
  /^((.*_)?embed(ding)?s?|embed_(tokens|positions|in|words|pos)|wte|wpe|wtt|shared|relative_attention_bias)$/i;
/** Of these, what is not looked up by token: small, and worth its bytes. */
const BY_POSITION = /pos|wpe|relative|token_type/i;
const NORM = /(^|_)(norm|ln|layernorm|rmsnorm|groupnorm|batchnorm)(\d|_|$)|(layer|rms|batch|group)_?norm/i;
const HEAD = /^(lm_head|embed_out)$/;

type Entries = ReadonlyMap<string, TensorEntry>;
type Config = Readonly<Record<string, unknown>> | undefined;

/** Of each tensor, in their order, what it is to a quantizer: what is known of its module says it, else its name and shape. */
export function* linearsOf(
  entries: Entries,
  config: Config,
  known?: KnownModules,
): Generator<LinearSite | OtherTensor, void> {
  const traits = traitsOf(entries, config);
  const tie = tieOf(config);
  for (const entry of entries.values())
    yield stackOf(entry, entries, known, config) ?? linearOf(entry, entries, traits, tie, known);
}

function linearOf(
  entry: TensorEntry,
  entries: Entries,
  traits: Traits,
  tie: ReturnType<typeof tieOf>,
  known: KnownModules | undefined,
): LinearSite | OtherTensor {
  const { shape } = entry;
  const name = layerOf(entry.name);
  const given = known?.kindOf(name);
  const kind = given === 'unsure' ? undefined : given;
  const scales = isFp8Scale(entry, traits) ? 'scale of an FP8 weight' : undefined;
  if (shape.length !== 2) return { entry, reason: scales ?? 'not a matrix', linear: false };
  const bias = name === entry.name ? undefined : entries.get(`${name}.bias`);
  const transposed = kind === undefined ? isTransposed(name, traits) : kind === 'transposed';
  const stored = transposed ? 'in-out' : 'out-in';
  const doubt = scales === undefined ? undefined : { reason: scales, linear: false };
  const itself =
    doubt ?? (kind === undefined ? doubtByName(entry, traits, known, given) : doubtByKind(name, kind, known!));
  const reason = faultOf(entry, stored, bias);
  if (reason !== undefined) return { entry, reason, linear: itself?.linear ?? true };
  const [rows, cols] = shape as [number, number];
  const borrowed = bias === undefined && hasBiasAround(name, stored === 'in-out' ? cols : rows, entries);
  const refused = itself ?? (borrowed ? { reason: 'its bias goes by another name', linear: true } : undefined);
  return {
    ...{ name, weight: entry, shape: stored === 'in-out' ? [cols, rows] : [rows, cols], stored },
    ...(bias === undefined ? {} : { bias }),
    ...(kind === undefined ? headByName(name, tie) : headByKind(name, kind, known!)),
    ...(refused === undefined ? {} : { doubt: refused }),
    ...(isEmbedding(name) ? { embedding: true } : {}),
    ...(known?.isReadAtLoading(name) ? { readAtLoading: true } : {}),
  };
}

type HeadTraits = Pick<LinearSite, 'head' | 'tied' | 'source'>;

function headByName(name: string, tie: ReturnType<typeof tieOf>): HeadTraits {
  const head = headOf(name);
  return {
    ...(head === undefined ? {} : { head }),
    ...(isHead(name) && tie !== 'untied' ? { tied: tie } : {}),
  };
}

function headByKind(name: string, kind: ModuleKind, known: KnownModules): HeadTraits {
  const source = kind === 'embedding' ? undefined : known.sourceOf(name);
  return {
    ...(kind === 'head' ? { head: headOf(name) ?? name } : {}),
    ...(source === undefined ? {} : { tied: 'tied' as const, source }),
  };
}

/** Why a matrix that is known is no linear layer, or none that another can take the place of. */
function doubtByKind(module: string, kind: ModuleKind, { name }: KnownModules): Doubt | undefined {
  if (kind === 'embedding') return { reason: 'embedding', linear: false };
  if (kind === 'read') return { reason: 'linear, but its weight is read past the layer', linear: true };
  if (kind === 'other' && /(^|\.)experts\./.test(module) && !/_bias$/.test(module))
    return { reason: FLATTENED, linear: false };
  if (kind === 'other' || kind === 'experts') return { reason: `not a linear layer of ${name}`, linear: false };
  return undefined;
}

/** The same by its name; of a model that is known, a matrix that is not stays. */
function doubtByName(
  entry: TensorEntry,
  traits: Traits,
  known: KnownModules | undefined,
  given: ModuleKind | undefined,
): Doubt | undefined {
  const doubt = doubtOf(entry, traits);
  if (doubt || given === 'unsure') return doubt;
  if (known !== undefined) return { reason: `not known of ${known.name}`, linear: true };
  const module = layerOf(entry.name);
  const lookup = headOf(module) === undefined ? traits.lookup(module) : undefined;
  return lookup === undefined ? undefined : { reason: lookup, linear: true };
}

/** What the model as a whole tells of its layers. */
interface Traits {
  /** `model_type` of the model, and of its parts. */
  readonly type: unknown;
  readonly types: readonly unknown[];
  /** Modules that have tensors besides weight and bias. */
  readonly crowded: ReadonlySet<string>;
  /** Last parts of the paths of layers that are stored [in, out], as the bias of one shows. */
  readonly transposed: ReadonlySet<string>;
  /** Modules whose weight is stored as FP8. */
  readonly fp8: ReadonlySet<string>;
  /** Why a matrix that is called as one of a layer may be none. */
  readonly lookup: (module: string) => string | undefined;
}

function traitsOf(entries: Entries, config: Config): Traits {
  const crowded = new Set<string>();
  const transposed = new Set<string>();
  const fp8 = new Set<string>();
  for (const { name, shape, type } of entries.values()) {
    const module = moduleOf(name);
    if (name === `${module}.weight` && isFp8(type)) fp8.add(module);
    if (name !== `${module}.bias` && name !== `${module}.weight`) crowded.add(module);
    const bias = entries.get(`${module}.bias`)?.shape;
    if (name !== `${module}.weight` || shape.length !== 2 || bias?.length !== 1) continue;
    if (bias[0] === shape[0] || bias[0] !== shape[1]) continue;
    const leaf = module.split('.').at(-1)!;
    for (const alike of CONV1D_LEAVES.includes(leaf) ? CONV1D_LEAVES : [leaf]) transposed.add(alike);
  }
  const types = [config, ...Object.values(config ?? {})].map((part) => {
    return typeof part === 'object' && part !== null
      ? (part as Readonly<Record<string, unknown>>).model_type
      : undefined;
  });
  return { type: types[0], types, crowded, transposed, fp8, lookup: lookupsOf(entries) };
}

/** Why a matrix is not taken for the weight of a linear layer; undefined where it is. */
function doubtOf({ name }: TensorEntry, traits: Traits): Doubt | undefined {
  const module = layerOf(name);
  if (module === name) return { reason: 'not named <module>.weight', linear: false };
  const parts = module.split('.');
  const leaf = parts.at(-1)!;
  const surely = SURELY_EMBEDDING.test(leaf);
  if (surely || parts.some((part) => EMBEDDING.test(part) && !HEAD.test(part)))
    return { reason: 'embedding', linear: !surely };
  if (NORM.test(leaf)) return { reason: 'norm', linear: true }; // A matrix: `norm_proj` for one is a layer.
  const { type, types, crowded } = traits;
  if (CONV1D_MODELS.has(type) && !CONV1D_LEAVES.includes(leaf) && headOf(module) === undefined) {
    return { reason: `may be a Conv1D of ${String(type)}`, linear: false };
  }
  if (types.some((part) => PARAMETER_ROUTERS.has(part)) && /^(gate|router)$/.test(leaf)) {
    return { reason: 'router that is not an nn.Linear', linear: false };
  }
  if (crowded.has(module)) return { reason: 'its module has other tensors than weight and bias', linear: true };
  return undefined;
}

/** Whether a layer is for certain a table of embeddings that are looked up by token. */
function isEmbedding(module: string): boolean {
  const leaf = module.split('.').at(-1)!;
  return SURELY_EMBEDDING.test(leaf) && !BY_POSITION.test(leaf);
}

function isFp8({ name }: StoredType): boolean {
  return name.startsWith('F8_');
}

/** Whether a tensor is what the FP8 weight of its module is to be multiplied with: `weight_scale_inv`, `weight_scale`. */
function isFp8Scale({ name }: TensorEntry, { fp8 }: Traits): boolean {
  const module = moduleOf(name);
  return fp8.has(module) && name.slice(module.length).includes('scale');
}

/** Whether a layer's bias goes by the name of one of the module around it, which who loads the layer would not find. */
function hasBiasAround(name: string, outs: number, entries: Entries): boolean {
  const around = entries.get(`${moduleOf(name)}.bias`)?.shape;
  return name.includes('.') && around?.length === 1 && around[0] === outs;
}

/** Why a matrix cannot be quantized, whatever it is; undefined where it can. `stored`: which way it lies. */
function faultOf(
  { shape, type }: TensorEntry,
  stored: LinearSite['stored'],
  bias: TensorEntry | undefined,
): string | undefined {
  if (numbersOf(type) === undefined) return `stored as ${isFp8(type) ? `FP8 (${type.name})` : type.name}`;
  if (shape[0] === 0 || shape[1] === 0) return 'empty';
  const outs = shape[stored === 'in-out' ? 1 : 0];
  if (bias && (bias.shape.length !== 1 || bias.shape[0] !== outs || numbersOf(bias.type) === undefined)) {
    return `its bias is ${bias.type.name} [${bias.shape.join(', ')}]`;
  }
  return undefined;
}

/** Whether a layer is stored `[in, out]`: it is called as the `Conv1D` layers of its model are, or as one whose bias shows it. */
function isTransposed(module: string, { types, transposed }: Traits): boolean {
  const leaf = module.split('.').at(-1)!;
  return transposed.has(leaf) || (CONV1D_LEAVES.includes(leaf) && types.some((part) => CONV1D_MODELS.has(part)));
}

/** The part of a module's path that makes it an output head. */
function headOf(module: string): string | undefined {
  return module.split('.').find((part) => HEAD.test(part));
}
