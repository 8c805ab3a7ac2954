import { join } from 'node:path';
import { widenBytes } from '../../compute/floats.js';
import type { TensorEntry, TensorSource } from '../../containers/container.js';
import { digestOf } from '../../containers/digest.js';
import { openSource } from '../../containers/list.js';
import { yieldIfDue } from '../../files/event-loop.js';
import { readWhole } from '../../files/io.js';
import { parseJson } from '../../files/json.js';
import { DTYPES } from '../../matrix/dtype.js';
import { allocating } from '../../messages/allocating.js';
import { HqqError, show } from '../../messages/errors.js';
import { plain, quote } from '../../messages/text.js';

// LoRA adapters in the form of peft: what a module's weight gains is scale * B A, with A [r, in] and B [out, r].

/** What peft calls its files (utils/constants.py). */
const [DESCRIPTION, WEIGHTS] = ['adapter_config.json', 'adapter_model.safetensors'] as const;
/** Descriptions have a few kilobytes. */
const MAX_CONFIG_BYTES = 1024 * 1024;
/** Longest pattern, and longest name of a module that it is held against: they come from strangers. */
const MAX_PATTERN = 256;
/** Most ways in which a pattern may be tried from one place of a name: one `.*` and some alternatives, not two. */
const MAX_WAYS = 4096;
/** Most such ways of all patterns, times the modules: 4096 modules have room for 4096 names, or for 16 wildcards. */
const MAX_TRIALS = 1 << 24;
/** What a pattern is made of. A number that ends at a dot ends in one place alone. */
const PARTS =
  /\\d[*+]\\\.(?![*+?{])|\\.|\[(?:\\.|[^\]\\])*\]|\((?:\?(?:[:=!]|<[=!]))?|[*+?]\??|\{(\d+)(,?)(\d*)\}\??|./gs;

/** The two matrices of one module. */
export interface LoraMatrices {
  readonly module: string;
  readonly a: TensorEntry;
  readonly b: TensorEntry;
  readonly rank: number;
}

/** What an adapter adds to the weight of one module. */
export interface LoraPair extends LoraMatrices {
  readonly scale: number;
}

/** Where an adapter is, and how it lies. */
export interface AdapterForm {
  readonly path: string;
  /** Whether weights lie as `[in, out]`. */
  readonly fanInFanOut: boolean;
}

/** An adapter that is open. */
export interface Adapter extends AdapterForm {
  readonly source: TensorSource;
  readonly pairs: readonly LoraPair[];
}

type Config = Readonly<Record<string, unknown>>;

const isFilled = (value: unknown) =>
  value !== undefined && value !== null && value !== false && Object.keys(Object(value)).length > 0;

/** What is more than two matrices of a module, and how people call it. */
const BEYOND: readonly (readonly [has: (config: Config) => boolean, what: string])[] = [
  [({ use_dora: dora }) => dora === true, 'DoRA (use_dora)'],
  [({ use_qalora: qalora }) => qalora === true, 'QA-LoRA (use_qalora)'],
  [({ bias }) => bias !== undefined && bias !== 'none', 'trained biases (bias)'],
  [({ lora_bias: bias }) => bias === true, 'biases of its own (lora_bias)'],
  [({ modules_to_save: modules }) => isFilled(modules), 'modules that are saved whole (modules_to_save)'],
  [({ trainable_token_indices: tokens }) => isFilled(tokens), 'trained tokens (trainable_token_indices)'],
  [({ layer_replication: layers }) => isFilled(layers), 'layers that stand for several (layer_replication)'],
  [({ target_parameters: parameters }) => isFilled(parameters), 'parameters that are no modules (target_parameters)'],
  [({ alora_invocation_tokens: tokens }) => isFilled(tokens), 'tokens that call it (alora_invocation_tokens)'],
  [
    ({ init_lora_weights: init }) => typeof init === 'string' && /^(pissa|olora|corda|loftq)/i.test(init),
    'a start that changed the weights of the model, too (init_lora_weights)',
  ],
];

/**
 * Opens an adapter: its description is checked, its matrices are found. Who has it closes its source.
 *
 * @param demand Throws for matrices that the model has no place for. Patterns are held against names that pass it alone: against all that a
 *   stranger may write, they would take for ever.
 */
export async function openAdapter(
  path: string,
  demand: (matrices: LoraMatrices, adapter: AdapterForm) => void,
  signal?: AbortSignal,
): Promise<Adapter> {
  const file = join(path, DESCRIPTION);
  const config = parseJson(await readWhole(file, MAX_CONFIG_BYTES), { file, allowNonFinite: true });
  const refuse = (got: string): never => {
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `Expected ${plain(path)} to be a LoRA adapter of peft, got ${got}.`);
  };
  if (typeof config !== 'object' || config === null || Array.isArray(config)) return refuse(show(config));
  const known = config as Config;
  if (known.peft_type !== 'LORA') return refuse(`one of peft_type ${show(known.peft_type)}`);
  const beyond = BEYOND.find(([has]) => has(known));
  if (beyond) return refuse(`one with ${beyond[1]}: merge it with peft in Python (merge_and_unload)`);
  const source = await openSource(join(path, WEIGHTS));
  try {
    const form: AdapterForm = { path, fanInFanOut: known.fan_in_fan_out === true };
    const matrices = matricesOf(source, refuse);
    for (const own of matrices) demand(own, form);
    const alphaOf = alphas(known, matrices.length, refuse);
    const pairs: LoraPair[] = [];
    for (const own of matrices) {
      const alpha = await alphaOf(own.module, signal);
      pairs.push({ ...own, scale: alpha / (known.use_rslora === true ? Math.sqrt(own.rank) : own.rank) });
    }
    return { ...form, source, pairs };
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** What tells an adapter from another: its description, and `digestOf` its matrices. */
export async function digestOfAdapter(path: string, signal?: AbortSignal): Promise<string> {
  const source = await openSource(join(path, WEIGHTS));
  try {
    const description = await readWhole(join(path, DESCRIPTION), MAX_CONFIG_BYTES);
    return `${await digestOf(source, signal)} ${description.toString('base64')}`;
  } finally {
    await source.close();
  }
}

/** The error for an adapter whose layers are not those of a model. */
export function otherModel(path: string, own: string, expected: string, got: string): HqqError {
  const message = `Expected ${plain(path)} to have ${expected}, as the adapter in ${plain(own)} has it, got ${got}`;
  return new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. It is of another model.`);
}

function matricesOf({ entries }: TensorSource, refuse: (got: string) => never): readonly LoraMatrices[] {
  const halves = new Map<string, { a?: TensorEntry; b?: TensorEntry }>();
  for (const entry of entries.values()) {
    const [, module, half] = /^base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight$/.exec(entry.name) ?? [];
    if (module === undefined) {
      const dora = entry.name.includes('lora_magnitude_vector') ? ', which is DoRA' : '';
      return refuse(`tensor ${quote(entry.name)}${dora}`);
    }
    if (entry.shape.length !== 2 || entry.type.float === undefined)
      return refuse(`${quote(entry.name)} as ${entry.type.name} [${entry.shape.join(', ')}], no matrix of floats`);
    if (entry.shape.includes(0)) return refuse(`${quote(entry.name)} of [${entry.shape.join(', ')}], which is empty`);
    const own = halves.get(module) ?? {};
    halves.set(module, { ...own, [half === 'A' ? 'a' : 'b']: entry });
  }
  if (halves.size === 0) return refuse('no matrices');
  return [...halves].map(([module, { a, b }]) => {
    if (!a || !b) return refuse(`only one of the two matrices of ${quote(module)}`);
    const [rank] = a.shape as readonly [number, number];
    if (b.shape[1] !== rank)
      return refuse(`matrices of ${quote(module)} of the ranks ${rank} and ${b.shape[1]}, which are one`);
    return { module, a, b, rank };
  });
}

/** `alpha_pattern` as peft reads it (`get_pattern_key`): the first pattern that is the end of a module's name, from a dot on. */
function alphas(config: Config, modules: number, refuse: (got: string) => never) {
  const numberOf = (value: unknown, name: string): number =>
    typeof value === 'number' && Number.isFinite(value) ? value : refuse(`${name} ${show(value)}`);
  const usual = numberOf(config.lora_alpha, 'lora_alpha');
  let ways = 0;
  const patterns = Object.entries((config.alpha_pattern ?? {}) as object).map(([pattern, value]) => {
    const alpha = numberOf(value, 'alpha_pattern');
    if (pattern.length > MAX_PATTERN || /[)\]][*+{]/.test(pattern)) return refuse(`alpha_pattern ${show(pattern)}`);
    const own = waysOf(pattern);
    if (own > MAX_WAYS)
      return refuse(
        `alpha_pattern ${show(pattern)}, which may take for ever: more than one "*" or "+", or too many "?"`,
      );
    ways += own;
    if (ways * modules > MAX_TRIALS)
      return refuse(
        `alpha_pattern of ${Object.keys(config.alpha_pattern as object).length} patterns for ${modules} modules, which may take for ever`,
      );
    try {
      return { matches: new RegExp(`^(?:.*\\.)?(?:${pattern})$`), alpha };
    } catch {
      return refuse(`alpha_pattern ${show(pattern)}, no regular expression`);
    }
  });
  return async (module: string, signal: AbortSignal | undefined): Promise<number> => {
    if (patterns.length > 0 && module.length > MAX_PATTERN) return refuse(`a module called ${show(module)}`);
    for (const { matches, alpha } of patterns) {
      await yieldIfDue();
      signal?.throwIfAborted();
      if (matches.test(module)) return alpha;
    }
    return usual;
  };
}

/** In how many ways at most a pattern without quantifiers of groups is tried: what follows another multiplies it, alternatives add up. */
function waysOf(pattern: string): number {
  const open = [{ sum: 0, product: 1 }];
  for (const [part, least, comma, most] of pattern.matchAll(PARTS)) {
    const group = open.at(-1)!;
    if (part.startsWith('(')) open.push({ sum: 0, product: 1 });
    else if (part === ')') {
      if (open.length === 1) return Infinity; // it would end the group that it is put into
      open.pop();
      open.at(-1)!.product *= group.sum + group.product;
    } else if (part === '|') {
      group.sum += group.product;
      group.product = 1;
    } else if (part.startsWith('?')) group.product *= 2;
    else if (/^[*+]/.test(part) || (comma && most === '')) group.product *= MAX_PATTERN;
    else if (comma) group.product *= Math.max(1, Math.min(MAX_PATTERN, Number(most) - Number(least) + 1));
  }
  return open[0]!.sum + open[0]!.product;
}

/** A matrix of an adapter, as floats. */
export async function readFactor(
  source: TensorSource,
  entry: TensorEntry,
  signal?: AbortSignal,
): Promise<Float32Array> {
  const dtype = entry.type.float!;
  const [rows, cols] = entry.shape as readonly [number, number];
  const { bytes: size } = DTYPES[dtype];
  const [values, bytes] = allocating(quote(entry.name), () => {
    const numbers = new Float32Array(rows * cols);
    return [numbers, dtype === 'float32' ? new Uint8Array(numbers.buffer) : new Uint8Array(rows * cols * size)];
  });
  await source.read(entry, 0, bytes, signal);
  if (dtype !== 'float32') widenBytes(bytes, dtype, values);
  return values;
}
