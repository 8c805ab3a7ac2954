import type { TensorSource } from '../containers/container.js';
import { digestOf } from '../containers/digest.js';
import { readWhole } from '../files/io.js';
import { parseJson } from '../files/json.js';
import { pathOf } from '../files/path.js';
import type { QuantConfig } from '../matrix/config.js';
import type { Option } from '../matrix/option.js';
import { overlay } from '../matrix/overlay.js';
import { HqqError, show } from '../messages/errors.js';
import { rejectUnknownOptions } from '../messages/options-object.js';
import { plain } from '../messages/text.js';

// A plan of bits: which options each layer of a model gets, as a file that a person can edit.

/** Which bits the layers of a model get, as plain JSON: what `planModel` of hqq/runtime finds, or somebody writes. */
export interface BitPlan {
  /** Of this form. */
  readonly version: 1;
  /** Fingerprint of the model that it was made for. Without one it is taken for any model. */
  readonly model?: string | undefined;
  /** Options of all layers; those of the call are stronger. @default {} */
  readonly config?: QuantConfig | undefined;
  /** Options of the layers that a glob matches, as in `overrides`: `{ 'model.layers.0.mlp.down_proj': { nbits: 4 } }`. */
  readonly overrides: Readonly<Record<string, QuantConfig>>;
  /** What was measured; nobody reads it. */
  readonly report?: unknown;
}

/** The option of a model that names one. */
export interface PlanOption {
  /**
   * A plan of bits, or the path of one: the file that `hqq plan` writes, or what `planModel` of `hqq/runtime` gives. Its options of
   * layers are stronger than those of the whole model, and `overrides` are stronger than it. A layer that it does not name gets the
   * options of the model.
   *
   * @default undefined
   * @throws {HqqError} `ERR_CHECKPOINT_FORMAT` for a file that is no plan, `ERR_INVALID_OPTION` for an object that is none or options
   *   that are none, `ERR_CHECKPOINT_CONTENT` for one of another model, or one that names layers that are not quantized.
   */
  readonly plan?: string | URL | BitPlan | undefined;
}

/** In the shape of `OPTIONS` of one matrix. */
export const PLAN_OPTION: Option<PlanOption['plan']> = {
  default: undefined,
  expected: 'the path of a plan, or a plan',
  accepts: (value) => value === undefined || (typeof value === 'string' ? value !== '' : isObject(value)),
  help: 'a plan of bits, as hqq plan writes it',
  parse: (text) => text,
};

/** Largest file: ten times what a plan of ten thousand layers takes. */
const MAX_PLAN_BYTES = 16 * 1024 * 1024;
/** Most layers that a plan names: each is held against every layer of the model. */
const MAX_OVERRIDES = 10_000;

const KEYS = ['version', 'model', 'config', 'overrides', 'report'] as const satisfies readonly (keyof BitPlan)[];

/** A plan, and what messages call it. */
export interface NamedPlan {
  readonly name: string;
  readonly plan: BitPlan;
}

/** Reads what the option names. Options of layers are for who resolves them to check. */
export async function readBitPlan(given: NonNullable<PlanOption['plan']>): Promise<NamedPlan> {
  if (typeof given !== 'string' && !('href' in given))
    return { name: 'the plan', plan: checked(given, 'the plan', 'ERR_INVALID_OPTION') };
  const path = pathOf(given, 'the plan', 'a plan of bits, as hqq plan writes it');
  const value = parseJson(await readWhole(path, MAX_PLAN_BYTES), { file: path });
  return { name: plain(path), plan: checked(value, plain(path), 'ERR_CHECKPOINT_FORMAT') };
}

/** The options of a call with those of a plan among them. */
export function withPlan<
  T extends QuantConfig & { readonly overrides?: Readonly<Record<string, QuantConfig>> | undefined },
>(options: T, { config = {}, overrides }: BitPlan): T {
  const joined = new Map(Object.entries(overrides));
  for (const [glob, own] of Object.entries(options.overrides ?? {})) {
    const whole = overlay(joined.get(glob) ?? {}, own);
    joined.delete(glob); // later ones win
    joined.set(glob, whole);
  }
  return { ...options, ...overlay(config, options), overrides: Object.fromEntries(joined) };
}

/**
 * @param digest of the source
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for a plan of another model
 */
export async function checkPlanFits(
  { name, plan }: NamedPlan,
  { path, of }: TensorSource,
  digest: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (plan.model === undefined || plan.model === digest) return;
  // A plan of a folder is one of the GGUF file that is made of it.
  if (of !== undefined && plan.model === (await digestOf(of, signal))) return;
  const message = `${name} is a plan for another model than ${plain(path)}: its fingerprint is ${plan.model.slice(0, 12)}..., that of the model ${digest.slice(0, 12)}...`;
  throw new HqqError(
    'ERR_CHECKPOINT_CONTENT',
    `${message} Plan anew, or take "model" out of the plan to use it all the same.`,
  );
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function checked(value: unknown, name: string, code: 'ERR_INVALID_OPTION' | 'ERR_CHECKPOINT_FORMAT'): BitPlan {
  const refuse = (what: string, expected: string, got: unknown): never => {
    throw new HqqError(code, `${name}: expected ${what} to be ${expected}, got ${show(got)}.`);
  };
  if (!isObject(value)) return refuse('the plan', 'an object with version, model and overrides', value);
  try {
    rejectUnknownOptions(value, KEYS);
  } catch (error) {
    throw new HqqError(code, `${name}: ${(error as Error).message}`);
  }
  const { version, model, config, overrides } = value as { readonly [K in keyof BitPlan]?: unknown };
  if (version !== 1) refuse('version', '1, the form that this version of hqq reads', version);
  if (model !== undefined && !(typeof model === 'string' && /^[0-9a-f]{64}$/.test(model)))
    refuse('model', 'a fingerprint, 64 hexadecimal digits, or not there', model);
  if (config !== undefined && !isObject(config))
    refuse('config', 'an object of options, such as {"solver": "joint"}', config);
  if (!isObject(overrides))
    return refuse('overrides', 'an object from layers to options, such as {"*.down_proj": {"nbits": 4}}', overrides);
  const entries = Object.entries(overrides);
  if (entries.length > MAX_OVERRIDES) refuse('overrides', `at most ${MAX_OVERRIDES} layers`, entries.length);
  for (const [glob, own] of entries) {
    if (!isObject(own)) refuse(`overrides[${show(glob)}]`, 'an object of options, such as {"nbits": 4}', own);
  }
  return value as BitPlan;
}
