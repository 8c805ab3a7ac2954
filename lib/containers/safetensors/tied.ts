type Config = Readonly<Record<string, unknown>> | undefined;

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

/** The head that may be the embedding matrix: Python then sets it from there, and a quantized one breaks that. */
export function isHead(module: string): boolean {
  return /(^|\.)lm_head$/.test(module);
}

/** Whether the head is tied. A model without a config.json is what the user takes it for. */
export function tieOf(config: Config): 'tied' | 'untied' | 'unsaid' {
  if (!config) return 'untied';
  const parts = [config, textConfig(config)];
  const said = parts.map((part) => part.tie_word_embeddings);
  if (said.includes(true)) return 'tied';
  return said.includes(false) || parts.some((part) => UNTIED_MODELS.has(part.model_type)) ? 'untied' : 'unsaid';
}

/** Models of several parts describe the language model apart. */
function textConfig(config: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const part = config.text_config;
  return typeof part === 'object' && part !== null ? (part as Readonly<Record<string, unknown>>) : {};
}
