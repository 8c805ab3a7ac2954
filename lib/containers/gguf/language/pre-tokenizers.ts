// How byte-level tokenizers cut text into words before they merge bytes: what tokenizer.json says, and llama.cpp's label of it.

/** A byte-level step that cuts nothing itself. */
const BYTES = { type: 'ByteLevel', add_prefix_space: false, use_regex: false };
/** One that cuts as GPT-2 does. */
const WORDS = { type: 'ByteLevel', add_prefix_space: false, use_regex: true };

const split = (pattern: string) => ({
  ...{ type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false },
});
const sequence = (...pretokenizers: readonly object[]) => ({ type: 'Sequence', pretokenizers });

/** Words, numbers of so many digits, signs, white space: as Llama 3 cuts. */
const modern = (digits: string) =>
  `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;

export interface PreTokenizer {
  /** `tokenizer.ggml.pre`. */
  readonly label: string;
  /** Other labels that llama.cpp takes for the same. */
  readonly aliases: readonly string[];
  /** `pre_tokenizer` of tokenizer.json. */
  readonly json: Readonly<Record<string, unknown>>;
  /** Whether words that are tokens are taken as they are, without merging. */
  readonly ignoreMerges: boolean;
  /** `normalizer` of tokenizer.json. */
  readonly normalizer: Readonly<Record<string, unknown>> | null;
}

export const PRE_TOKENIZERS: readonly PreTokenizer[] = [
  { label: 'gpt-2', aliases: [], json: WORDS, ignoreMerges: false, normalizer: null },
  {
    ...{ label: 'smollm', aliases: [], ignoreMerges: false, normalizer: null },
    json: sequence({ type: 'Digits', individual_digits: true }, WORDS),
  },
  {
    ...{ label: 'llama-bpe', aliases: ['llama3', 'llama-v3'], ignoreMerges: true, normalizer: null },
    json: sequence(split(modern('\\p{N}{1,3}')), BYTES),
  },
  {
    ...{ label: 'qwen2', aliases: [], ignoreMerges: false, normalizer: { type: 'NFC' } },
    json: sequence(split(modern('\\p{N}')), BYTES),
  },
];

/** What a step says, but for what changes no token: in one order of members. */
function essence(step: unknown): unknown {
  if (Array.isArray(step)) return step.map(essence);
  if (typeof step !== 'object' || step === null) return step;
  const members = Object.entries(step).filter(([name]) => name !== 'trim_offsets');
  return Object.fromEntries(
    members.sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, value]) => [name, essence(value)]),
  );
}

/** Whether two steps cut alike. */
export function sameStep(a: unknown, b: unknown): boolean {
  return JSON.stringify(essence(a)) === JSON.stringify(essence(b));
}
