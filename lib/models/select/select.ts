import type { Checkpoint, CheckpointTensor } from '../../containers/safetensors/checkpoint.js';
import { overlay, type QuantConfig } from '../../matrix/config.js';
import { HqqError, show } from '../../messages/errors.js';
import { plain, quote, quoteSome } from '../../messages/text.js';
import { plural } from '../../messages/units.js';
import type { ResolvedModelOptions } from '../options.js';
import { faultOf, headOf, traitsOf } from './faults.js';
import { compileGlob, type Glob, moduleOf, unmatched } from './globs.js';

/** A weight that will be quantized. */
export interface SelectedWeight {
  readonly module: string;
  readonly shape: readonly [number, number];
  readonly weight: CheckpointTensor;
  readonly bias: CheckpointTensor | undefined;
  /** What was asked for, overrides included. */
  readonly config: QuantConfig;
}

/** A tensor that stays, and why. */
export interface DenseTensor {
  readonly tensor: CheckpointTensor;
  readonly reason: string;
  /** It is, or may be, the weight of an nn.Linear: Python must be told to leave it alone. */
  readonly linear: boolean;
}

export interface Selection {
  readonly weights: readonly SelectedWeight[];
  readonly dense: readonly DenseTensor[];
  readonly notes: readonly string[];
}

/** Models whose head is the embedding only where their config says so; that of all others is unless it says not. */
const UNTIED_MODELS: ReadonlySet<unknown> = new Set([
  'llama',
  'llama4_text',
  'mistral',
  'mixtral',
  'qwen2',
  'qwen2_moe',
  'qwen3',
  'qwen3_moe',
  'phi',
  'phi3',
  'phimoe',
  'gptj',
  'gpt_neox',
  'codegen',
  'stablelm',
  'olmo',
  'olmo2',
  'olmoe',
  'deepseek_v2',
  'deepseek_v3',
  'granite',
  'granitemoe',
  'glm',
  'glm4',
  'glm4_moe',
  'nemotron',
  'persimmon',
]);

/**
 * Chooses the linear weights, and says of every other tensor why it stays.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` when nothing is left, a pattern does nothing, or the model is quantized already.
 */
export function selectWeights(checkpoint: Checkpoint, asked: QuantConfig, options: ResolvedModelOptions): Selection {
  rejectQuantized(checkpoint);
  const include = options.include.map(compileGlob);
  const exclude = options.exclude.map(compileGlob);
  const overrides = Object.entries(options.overrides).map(([text, override]) => ({ ...compileGlob(text), override }));
  const weights: SelectedWeight[] = [];
  const dense: DenseTensor[] = [];
  const notes = new Set<string>();
  const traits = traitsOf(checkpoint);
  const tie = tieOf(checkpoint);

  for (const [name, tensor] of checkpoint.tensors) {
    const module = moduleOf(name);
    const fault = faultOf(checkpoint, name, tensor, traits);
    const stay = (reason: string, linear = true) => dense.push({ tensor, reason, linear });
    if (fault) stay(fault.reason, fault.linear ?? false);
    else if (tie === 'tied' && isHead(module)) {
      stay('tied to the embedding');
      if ([...include, ...overrides].some((glob) => glob.matches(name))) {
        notes.add(`${plain(name)} is tied to the embedding (tie_word_embeddings) and was left as it is.`);
      }
    } else if (exclude.some((glob) => glob.matches(name))) stay('excluded');
    else if (include.length > 0 && !include.some((glob) => glob.matches(name))) stay('not included');
    else if (include.length === 0 && headOf(module) !== undefined) stay(`excluded by default: ${headOf(module)}`);
    else if (tie === 'unsaid' && isHead(module)) {
      stay('may be tied to the embedding');
      const advice = 'If it is not, say so there ("tie_word_embeddings": false) to quantize it';
      notes.add(
        `${plain(name)} was left as it is: config.json does not say whether it is tied to the embedding. ${advice}.`,
      );
    } else {
      const [rows, cols] = tensor.entry.shape as [number, number];
      const own = overrides.filter((glob) => glob.matches(name)).map((glob) => glob.override);
      const bias = checkpoint.tensors.get(`${module}.bias`);
      weights.push({ module, shape: [rows, cols], weight: tensor, bias, config: own.reduce(overlay, asked) });
    }
  }

  const selection = { weights, dense, notes: [...notes] };
  checkGlobs('include', include, checkpoint, selection);
  checkGlobs('overrides', overrides, checkpoint, selection);
  const names = [...checkpoint.tensors.keys()];
  for (const glob of exclude) if (!names.some(glob.matches)) throw unmatched('exclude', glob, names);
  return selection;
}

/** Why nothing is left to quantize. */
export function nothingLeft(path: string, dense: readonly DenseTensor[]): HqqError {
  const counts = new Map<string, number>();
  for (const { reason } of dense) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  const reasons = [...counts]
    .sort((a, b) => b[1] - a[1])
    .slice(0, 8)
    .map(([reason, count]) => `${count} ${reason}`);
  const what =
    dense.length === 1 ? 'its one tensor stays as it is' : `its ${plural(dense.length, 'tensor')} stay as they are`;
  const why = dense.length === 0 ? 'it holds no tensors' : `${what} (${reasons.join('; ')})`;
  return new HqqError('ERR_CHECKPOINT_CONTENT', `${plain(path)} has no linear weight to quantize: ${why}.`);
}

/** The head that may be the embedding matrix: Python then sets it from there, and a quantized one breaks that. */
function isHead(module: string): boolean {
  return /(^|\.)lm_head$/.test(module);
}

/** Whether the head is tied. A model without a config.json is what the user takes it for. */
function tieOf({ config }: Checkpoint): 'tied' | 'untied' | 'unsaid' {
  if (!config) return 'untied';
  const parts = [config.value, textConfig(config)];
  const said = parts.map((part) => part.tie_word_embeddings);
  if (said.includes(true)) return 'tied';
  return said.includes(false) || parts.some((part) => UNTIED_MODELS.has(part.model_type)) ? 'untied' : 'unsaid';
}

/** Models of several parts describe the language model apart. */
function textConfig(config: Checkpoint['config']): Readonly<Record<string, unknown>> {
  const part = config?.value.text_config;
  return typeof part === 'object' && part !== null ? (part as Readonly<Record<string, unknown>>) : {};
}

/** A pattern must do something: a typo would go unnoticed. Only tied heads are excused; a note tells of them. */
function checkGlobs(
  option: string,
  globs: readonly Glob[],
  checkpoint: Checkpoint,
  { weights, dense }: Selection,
): void {
  for (const glob of globs) {
    if (weights.some(({ weight }) => glob.matches(weight.entry.name))) continue;
    const stays = dense.filter(({ tensor }) => glob.matches(tensor.entry.name));
    if (stays.length === 0) throw unmatched(option, glob, checkpoint.tensors.keys());
    if (stays.some(({ reason }) => reason.endsWith('tied to the embedding'))) continue;
    const first = stays[0]!;
    const rest = stays.length > 1 ? ` (and ${stays.length - 1} more)` : '';
    const advice =
      option === 'overrides' && /^(excluded by default|not included)/.test(first.reason) ? ' Include it too.' : '';
    const name = quote(first.tensor.entry.name);
    const message = `Expected ${option} ${quote(glob.text)} to match a weight that is quantized, but ${name}${rest}`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message} stays as it is: ${first.reason}.${advice}`);
  }
}

function rejectQuantized({ path, tensors, config }: Checkpoint): void {
  const refuse = (what: string) => {
    const message = `${plain(path)} is quantized already: ${what}. Quantize the original model instead.`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', message);
  };
  const layers = [...tensors.keys()].filter((name) => name.endsWith('.W_q'));
  if (layers.length > 0) refuse(`${layers.length} layers hold HQQ codes (${quoteSome(layers, 1)})`);
  const declared = config?.value.quantization_config ?? config?.value.compression_config;
  if (typeof declared !== 'object' || declared === null) return;
  const method = (declared as Record<string, unknown>).quant_method;
  refuse(`its config.json has a quantization_config of method ${plain(show(method ?? 'unknown'))}`);
}
