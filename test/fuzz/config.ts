import { isDeepStrictEqual } from 'node:util';
import { withMember, withoutMember } from '../../lib/containers/safetensors/config-text.js';
import { parseIndex } from '../../lib/containers/safetensors/shards.js';
import { parseJson } from '../../lib/files/json.js';
import { NBITS, type QuantConfig } from '../../lib/matrix/config.js';
import { DTYPES } from '../../lib/matrix/dtype.js';
import { OPTION_NAMES, resolveQuantConfig } from '../../lib/matrix/options.js';
import { resolveOptions } from '../../lib/models/options.js';
import { ARCHITECTURES } from '../../lib/runtime/config/architectures/list.js';
import { readModelConfig } from '../../lib/runtime/config/model-config.js';
import { SOLVERS, solverNamed } from '../../lib/solvers/solvers.js';
import { attempt, demand, type Target } from './outcome.js';
import { damage, HOSTILE_NUMBERS, Random } from './random.js';

// Options that callers give, and the JSON files of a model folder: config.json with its quantization_config, and the index.

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

const KEYS = [
  'architectures',
  'model_type',
  'hidden_size',
  'intermediate_size',
  'num_hidden_layers',
  'num_attention_heads',
  'num_key_value_heads',
  'head_dim',
  'vocab_size',
  'max_position_embeddings',
  'rms_norm_eps',
  'rope_theta',
  'rope_scaling',
  'rope_parameters',
  'hidden_act',
  'attention_bias',
  'mlp_bias',
  'tie_word_embeddings',
  'eos_token_id',
  'sliding_window',
  'layer_types',
  'use_sliding_window',
  'max_window_layers',
  'quantization_config',
  'partial_rotary_factor',
  'attn_logit_softcapping',
  'query_pre_attn_scalar',
  'embedding_multiplier',
  'logits_scaling',
  'no_rope_layers',
  'num_experts',
  'num_local_experts',
  'num_experts_per_tok',
  'mlp_only_layers',
  'sliding_window_pattern',
  '__proto__',
  '',
  'constructor',
  'toString',
];

/** JSON text of any value. */
function anyJson(random: Random, depth = 0): string {
  switch (random.below(depth > 3 ? 6 : 9)) {
    case 0:
      return random.pick(HOSTILE_NUMBERS.filter((text) => isJson(text)));
    case 1:
      return String(random.below(200));
    case 2:
      return random.pick(['true', 'false', 'null']);
    case 3:
      return random.pick([
        '"silu"',
        '"gelu"',
        '"hqq"',
        '"full_attention"',
        '"sliding_attention"',
        '"default"',
        '""',
        '"\\u0000\\u202e"',
      ]);
    case 4:
      return random.pick([
        '"LlamaForCausalLM"',
        '"MistralForCausalLM"',
        '"Qwen2ForCausalLM"',
        '"llama"',
        '"linear"',
        '"yarn"',
        '"llama3"',
        '"longrope"',
        '"su"',
      ]);
    case 5:
      return String(random.below(1e6) / 1000);
    case 6:
      return `[${Array.from({ length: random.below(4) }, () => anyJson(random, depth + 1)).join(',')}]`;
    default:
      return objectJson(random, random.below(4), depth + 1);
  }
}

function isJson(text: string): boolean {
  try {
    return Number.isFinite(JSON.parse(text));
  } catch {
    return false;
  }
}

const ROPE_KEYS = [
  'type',
  'rope_type',
  'factor',
  'low_freq_factor',
  'high_freq_factor',
  'original_max_position_embeddings',
  'beta_fast',
  'beta_slow',
  'truncate',
  'attention_factor',
  'mscale',
  'mscale_all_dim',
  'rope_theta',
  'short_factor',
  'long_factor',
  'full_attention',
  'sliding_attention',
  'quant_method',
  'quant_config',
  'weight_map',
];

function objectJson(random: Random, size: number, depth: number): string {
  const keys = depth > 1 ? ROPE_KEYS : KEYS;
  return `{${Array.from({ length: size }, () => `${JSON.stringify(random.pick(keys))}:${anyJson(random, depth)}`).join(',')}}`;
}

/** A config.json that runs, with a few members changed. */
function modelJson(random: Random): string {
  const architecture = random.pick(Object.keys(ARCHITECTURES));
  const members = new Map<string, string>([
    ['architectures', `["${architecture}"]`],
    ['hidden_size', '64'],
    ['intermediate_size', '128'],
    ['num_hidden_layers', '2'],
    ['num_attention_heads', '4'],
    ['num_key_value_heads', '2'],
    ['vocab_size', '96'],
    ['rms_norm_eps', '1e-05'],
    [
      'rope_scaling',
      random.pick(['null', '{"type":"linear","factor":2.0}', '{"rope_type":"yarn","factor":4.0,"mscale":1}']),
    ],
  ]);
  for (let times = random.below(4); times > 0; times--) members.set(random.pick(KEYS), anyJson(random));
  if (random.chance(10)) members.delete(random.pick([...members.keys()]));
  return `{${[...members].map(([key, value]) => `${JSON.stringify(key)}: ${value}`).join(random.chance(50) ? ',\n  ' : ', ')}}`;
}

/** The reader of JSON agrees with JSON.parse, but for what it refuses on purpose. */
function tryJson(random: Random): boolean {
  let text = Buffer.from(random.chance(50) ? modelJson(random) : anyJson(random));
  if (random.chance(60)) text = Buffer.from(damage(random, text));
  const value = attempt(['ERR_CHECKPOINT_FORMAT'], () => ({
    value: parseJson(text, { file: 'config.json', what: 'config.json' }),
  }));
  let other: { value: unknown; text: string } | undefined;
  try {
    const decoded = UTF8.decode(text);
    other = { value: JSON.parse(decoded), text: decoded };
  } catch {
    other = undefined;
  }
  if (value) {
    demand(other !== undefined, 'accepted what is no JSON');
    demand(isDeepStrictEqual(value.value, other.value), 'read another value than JSON.parse');
  } else if (other) {
    // Refused on purpose: duplicate keys, lone surrogates, numbers that are infinite, levels beyond 64.
    const printed = JSON.stringify(other.value);
    const squeezed = other.text.replaceAll(/("(?:[^"\\]|\\.)*")|[ \n\r\t]+/g, '$1');
    demand(printed !== squeezed || /\\ud[89a-f]/i.test(printed) || printed.includes('[[[['), 'refused what is JSON');
  }
  return value !== undefined;
}

/** A model's config is refused, or every number in it is one that the runtime can work with. */
function tryModel(random: Random): boolean {
  const value = attempt(['ERR_CHECKPOINT_FORMAT'], () =>
    parseJson(Buffer.from(modelJson(random)), { file: 'config.json', what: 'config.json', allowNonFinite: true }),
  ) as Readonly<Record<string, unknown>> | undefined;
  if (!value) return false;
  const config = attempt(['ERR_CHECKPOINT_FORMAT', 'ERR_CHECKPOINT_CONTENT'], () => readModelConfig(value));
  if (!config) return false;
  const counts = [
    config.hiddenSize,
    config.intermediateSize,
    config.layers,
    config.heads,
    config.kvHeads,
    config.headDim,
  ];
  demand(
    [...counts, config.vocabSize, config.maxPositions].every((n) => Number.isSafeInteger(n) && n >= 1),
    'a count that is none',
  );
  demand(config.heads % config.kvHeads === 0 && config.headDim % 2 === 0, 'heads that cannot be shared or turned');
  demand(config.windows.length === config.layers, 'windows for another number of layers');
  demand(
    config.windows.every((n) => Number.isSafeInteger(n) && n >= 0),
    'a window that is none',
  );
  demand(
    [config.normEpsilon, ...config.ropes.map(({ theta }) => theta), ...Object.values(config.multipliers)].every(
      (x) => x > 0 && Number.isFinite(x),
    ),
    'a number that is not positive',
  );
  demand(
    config.ropes.every(({ scaling }) =>
      Object.values(scaling)
        .flat()
        .every((x) => typeof x !== 'number' || Number.isFinite(x)),
    ),
    'a rope that is not finite',
  );
  const { experts } = config;
  demand(
    !experts || (experts.blocks.length === config.layers && experts.chosen >= 1 && experts.chosen <= experts.count),
    'experts that cannot be chosen',
  );
  demand(
    config.ropes.every(({ turned }) => turned >= 2 && turned <= config.headDim && turned % 2 === 0) &&
      config.ropeOf.every((rope) => rope === undefined || rope < config.ropes.length),
    'a rope that turns nothing',
  );
  demand(
    config.endIds.every((id) => Number.isSafeInteger(id) && id >= 0),
    'a token that is none',
  );
  return true;
}

/** An index is refused, or it is what JSON.parse sees in it, with plain file names for shards. */
function tryIndex(random: Random): boolean {
  const shards = [
    'model-00001-of-00002.safetensors',
    'model-00002-of-00002.safetensors',
    '../x.safetensors',
    'a.bin',
    '.safetensors',
  ];
  const count = random.below(5);
  const pairs = Array.from(
    { length: count },
    (_, i) => `"t${i}":"${random.chance(90) ? shards[random.below(2)] : random.pick(shards)}"`,
  );
  const members = [`"weight_map":{${pairs.join(',')}}`, `"metadata":{"total_size":${random.pick(HOSTILE_NUMBERS)}}`];
  let text = Buffer.from(`{${(random.chance(50) ? members.reverse() : members).join(',')}}`);
  if (random.chance(50)) text = Buffer.from(damage(random, text));
  const map = attempt(['ERR_CHECKPOINT_FORMAT'], () => parseIndex(text, 'model.safetensors.index.json', 0));
  if (!map) return false;
  const other = (JSON.parse(text.toString()) as { weight_map: Record<string, string> }).weight_map;
  demand(isDeepStrictEqual([...map].sort(), Object.entries(other).sort()), 'another map than JSON.parse sees');
  for (const shard of map.values())
    demand(/^[^./\\:\p{C}][^/\\:\p{C}]*\.safetensors$/u.test(shard), `a shard called ${JSON.stringify(shard)}`);
  return true;
}

/** config.json with a member put in or taken out, in its text, is the same value with that member put in or taken out. */
function tryText(random: Random): boolean {
  let text = modelJson(random);
  if (random.chance(30)) text = `\n ${text.replaceAll(',', ' ,\n\t')} \n`;
  if (random.chance(10)) text = '{ }';
  const value = attempt(['ERR_CHECKPOINT_FORMAT'], () =>
    parseJson(Buffer.from(text), { file: 'config.json', what: 'config.json' }),
  );
  if (value === undefined) return false;
  const key = random.chance(80) ? 'quantization_config' : random.pick(KEYS.filter((name) => name !== '__proto__'));
  const { [key]: _, ...rest } = value as Record<string, unknown>;
  const member = JSON.parse(JSON.stringify(JSON.parse(anyJson(random)))) as unknown; // -0 is written as 0
  const { ['__proto__']: __, ...plainRest } = rest;
  const parse = (json: string) => {
    const { ['__proto__']: ___, ...plain } = JSON.parse(json) as Record<string, unknown>;
    return plain;
  };
  demand(isDeepStrictEqual(parse(withoutMember(text, key)), plainRest), `took more than ${key} out`);
  demand(
    isDeepStrictEqual(parse(withMember(text, key, member)), { ...plainRest, [key]: member }),
    `put more than ${key} in`,
  );
  return true;
}

const VALUES: readonly (() => unknown)[] = [
  () => undefined,
  () => null,
  () => NaN,
  () => Infinity,
  () => -0,
  () => 4,
  () => '4',
  () => true,
  () => [4],
  () => ({}),
  () => 1.58,
  () => 64,
  () => 0.7,
  () => 2 ** 31,
  () => -1,
  () => 0.5,
  () => 'hqq',
  () => 'minmax',
  () => 10n,
  () => Symbol('x'),
  () => () => 4,
  () => Object.create(null) as unknown,
  () => new Float32Array(3),
  () => new Date(NaN),
  () => '\u202e\u0007',
  () => 'x'.repeat(5000),
  () => ({ constructor: { name: '\u0007' } }),
  () => Array(100).fill([1, 2]),
  () => ['*.q_proj', '*'],
  () => '*',
  () => ({ '*': { nbits: 3 } }),
  () => ({ '*': { nbits: 7 } }),
  () => ({ '*': null }),
  () => AbortSignal.abort(),
  () => 1000,
  () => 1,
];

/** Options are refused in words, or what comes of them is in the ranges that the types document. */
function tryOptions(random: Random): boolean {
  const given: Record<string, unknown> = {};
  const names = [
    ...OPTION_NAMES,
    'include',
    'exclude',
    'overrides',
    'metaDtype',
    'force',
    'dryRun',
    'threads',
    'signal',
    'onProgress',
  ];
  for (let times = random.below(5); times > 0; times--) {
    const name = random.chance(95)
      ? random.pick(names)
      : random.pick(['groupsize', 'nBits', '', '\u0007', '__proto__', 'x'.repeat(3000)]);
    Object.defineProperty(given, name, {
      value: random.pick(VALUES)(),
      enumerable: true,
      configurable: true,
      writable: true,
    });
  }
  const model = attempt(['ERR_INVALID_OPTION'], () => resolveOptions(given));
  const config = attempt(['ERR_INVALID_OPTION'], () =>
    resolveQuantConfig((random.chance(3) ? random.pick(VALUES)() : given) as QuantConfig),
  );
  for (const resolved of [model?.config, config]) {
    if (!resolved) continue;
    const { nbits, groupSize, axis, solver, zeroPoint, scaleDtype, ...numbers } = resolved;
    const { lpNorm, beta, kappa, lambda, rho, iterations, roundZero, referenceGuards } = numbers;
    const within = (x: number, low: number, high: number) => x >= low && x <= high;
    demand(
      NBITS.includes(nbits) && (axis === 0 || axis === 1) && SOLVERS.includes(solver) && scaleDtype in DTYPES,
      'a choice that is none',
    );
    demand(
      groupSize === null || (Number.isInteger(groupSize) && within(groupSize, 1, 2 ** 31 - 1)),
      'a group size that is none',
    );
    const row = solverNamed(solver);
    demand(row.zeroPoints.includes(zeroPoint) && !(roundZero && zeroPoint !== 'float'), 'zeros that are none');
    demand(
      lpNorm > 0 && (row.lpNorm?.accepts(lpNorm) ?? true) && within(beta, 1e-6, 1e6) && within(kappa, 1, 2),
      'a number out of range',
    );
    demand(within(lambda, 0, 1e6) && within(rho, 0.001, 1000), 'a penalty out of range');
    demand(Number.isInteger(iterations) && within(iterations, 1, 1000), 'iterations out of range');
    demand(typeof roundZero === 'boolean' && typeof referenceGuards === 'boolean', 'a flag that is none');
    demand(Object.isFrozen(resolved), 'options that may change');
  }
  return model !== undefined || config !== undefined;
}

const KINDS = [tryJson, tryModel, tryIndex, tryText, tryOptions] as const;

export const config: Target = {
  name: 'config',
  quick: 40_000,
  full: 4_300_000,
  tryOne(seed, input) {
    const random = new Random(seed, input);
    return random.pick(KINDS)(random);
  },
};
