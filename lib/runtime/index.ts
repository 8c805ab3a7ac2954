export { type Block, type BlockLinears, type BlockStep, RmsNorm } from './blocks.js';
export type { KvCache } from './cache.js';
export type { LanguageModelConfig } from './config.js';
export type { GeneratedToken, GenerateOptions } from './generate.js';
export type { Linear } from './linear.js';
export { loadLanguageModel } from './load.js';
export type { LoadLanguageModelOptions } from './load-options.js';
export type { ForwardOptions, LanguageModel, Perplexity, TokenIds } from './model.js';
export { openTokenizer, type TextTokenizer } from './tokens.js';
