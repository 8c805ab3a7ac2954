export type { PlanOptions, PlanProgress } from './allocate/options.js';
export { planModel } from './allocate/plan-model.js';
export type {
  MeasuredPlan,
  PlanCandidate,
  PlanReport,
  PlanScore,
  PlanSensitivity,
  PlanTarget,
  PlanTradeOff,
} from './allocate/plan-report.js';
export { type CollectOptions, type CollectProgress, collectImportance } from './calibrate/collect.js';
export type { Statistics } from './calibrate/statistics.js';
export type { FilePath } from './files/path.js';
export type { BitPlan } from './models/bit-plan.js';
export type { ImportanceSource } from './models/importance-options.js';
export type { AdapterChoice } from './runtime/adapters.js';
export type { KvCache } from './runtime/blocks/cache.js';
export type { LinearInput, Tap } from './runtime/blocks/tap.js';
export type { ArchitectureName } from './runtime/config/architectures/list.js';
export type {
  Activation,
  BlockNorms,
  Description,
  ExpertNames,
  ExpertsConfig,
  Multipliers,
  SoftCaps,
} from './runtime/config/description.js';
export type { LanguageModelConfig } from './runtime/config/model-config.js';
export type {
  Llama3Rope,
  LongRope,
  PlainRope,
  RopeConfig,
  RopeScaling,
  StretchedRope,
  YarnRope,
} from './runtime/config/rope-config.js';
export { type EncoderReport, type EncoderScore, evaluateEncoders } from './runtime/encoder/evaluate-encoders.js';
export { type EvaluateReport, evaluateModels, type ModelScore } from './runtime/evaluate/evaluate.js';
export type { EvaluateOptions, EvaluateProgress } from './runtime/evaluate/options.js';
export type { ForwardOptions, Stoppable } from './runtime/forward-options.js';
export { loadLanguageModel } from './runtime/load.js';
export type { LoadLanguageModelOptions } from './runtime/load-options.js';
export type { LanguageModel } from './runtime/model.js';
export type { Perplexity, PerplexityOptions } from './runtime/perplexity.js';
export { type BlockSource, type BlockSourceOptions, openBlockSource } from './runtime/source/block-source.js';
export type { BlockLinear, BlockRun, OpenBlock } from './runtime/source/open-block.js';
export type { HeadRun, OpenHead } from './runtime/source/open-head.js';
export type { OpenPart } from './runtime/source/open-part.js';
export type { PartOptions } from './runtime/source/part-options.js';
export type { PartRun } from './runtime/source/texts.js';
export type { ChatMessage, ChatOptions, ChatPromptOptions } from './runtime/text/chat-template.js';
export type { GeneratedToken, PromptReport } from './runtime/text/generate.js';
export type { GenerateOptions } from './runtime/text/generate-options.js';
export type { TokenIds } from './runtime/text/ids.js';
export type { TextFormat } from './runtime/text/json/json-text.js';
export type { TokenLikelihood, TokenLikelihoods } from './runtime/text/sampling.js';
export { openTokenizer, type TextTokenizer } from './runtime/text/tokenizer.js';
export {
  type FakeQuantized,
  type FakeQuantizeGradients,
  type FakeQuantizeOptions,
  fakeQuantize,
  fakeQuantizeGradients,
  fakeQuantizeGradientsSync,
  fakeQuantizeSync,
} from './tune/fake-quantize.js';
