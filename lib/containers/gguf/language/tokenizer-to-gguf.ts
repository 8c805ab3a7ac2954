import { type HqqError, show } from '../../../messages/errors.js';
import { plain, quote } from '../../../messages/text.js';
import type { WrittenValue } from '../values.js';
import { PRE_TOKENIZERS, sameStep } from './pre-tokenizers.js';
import { beginOf, type Ending } from './template.js';
import type { TokenizerFiles } from './tokenizer-files.js';

type Json = Readonly<Record<string, unknown>>;
type Pairs = (readonly [string, WrittenValue])[];

/** llama.cpp's kinds of tokens. */
export const KIND = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** What SentencePiece has in place of a space. */
export const SPACE = '▁';

/** A token that no vocabulary has, of a model whose embeddings are more. */
export const padding = (id: number) => `[PAD${id}]`;

interface Vocabulary {
  readonly tokens: readonly string[];
  readonly kinds: readonly number[];
  readonly ids: ReadonlyMap<string, number>;
}

/**
 * A tokenizer as key-value pairs.
 *
 * @param count Rows of the table of embeddings.
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for a kind that is not known: with a wrong label llama.cpp would run, and be wrong.
 */
export function tokenizerPairs(files: TokenizerFiles, count: number, advise: (message: string) => HqqError): Pairs {
  const { tokenizer, chatTemplate } = files;
  const refuse = (expected: string, got: unknown) => {
    const shown = typeof got === 'string' ? quote(got) : plain(JSON.stringify(got) ?? show(got));
    return advise(`${plain(files.path)}: Expected ${expected}, got ${shown.slice(0, 400)}`);
  };
  const model = tokenizer.model as Json | undefined;
  if (typeof model !== 'object' || model === null || (model.type ?? 'BPE') !== 'BPE')
    throw refuse('a tokenizer that merges pairs (BPE)', model?.type);
  if (typeof model.vocab !== 'object' || model.vocab === null || !Array.isArray(model.merges))
    throw refuse('a model with vocab and merges', Object.keys(model));
  const merges: readonly unknown[] = model.merges;
  const byPieces = model.byte_fallback === true;
  const vocabulary = vocabularyOf(tokenizer, model.vocab as Json, count, byPieces, refuse);
  const kind = byPieces
    ? piecePairs(tokenizer, model, vocabulary, merges, refuse)
    : bytePairs(tokenizer, model, merges, refuse);
  return [
    ...kind,
    ['tokenizer.ggml.tokens', ['strings', vocabulary.tokens]],
    ['tokenizer.ggml.token_type', ['i32s', vocabulary.kinds]],
    ...specialPairs(files, vocabulary, refuse),
    ...(chatTemplate === undefined ? [] : [['tokenizer.chat_template', ['string', chatTemplate]] as const]),
  ];
}

type Refuse = (expected: string, got: unknown) => HqqError;

function mergeOf(merge: unknown, refuse: Refuse): readonly [string, string] {
  const parts = typeof merge === 'string' ? merge.split(' ') : merge;
  if (Array.isArray(parts) && parts.length === 2 && parts.every((part) => typeof part === 'string'))
    return parts as [string, string];
  throw refuse('every merge to be of two pieces', merge);
}

/** As GGUF files have it. What is so already is kept, since there may be hundreds of thousands. */
function mergeText(merge: unknown, refuse: Refuse): string {
  const [left, right] = mergeOf(merge, refuse);
  return typeof merge === 'string' ? merge : `${left} ${right}`;
}

function vocabularyOf(
  { added_tokens: added }: Json,
  vocab: Json,
  count: number,
  byPieces: boolean,
  refuse: Refuse,
): Vocabulary {
  const tokens: (string | undefined)[] = new Array(count).fill(undefined);
  const kinds: number[] = new Array(count).fill(KIND.unused);
  const ids = new Map<string, number>();
  const put = (id: unknown, token: unknown, kind: number) => {
    if (typeof token !== 'string' || !Number.isSafeInteger(id) || (id as number) < 0 || (id as number) >= count)
      throw refuse(`ids of tokens below ${count}, which is vocab_size`, { [String(token)]: id });
    const before = tokens[id as number];
    if (before !== undefined && before !== token) throw refuse(`one token of id ${id}`, [before, token]);
    tokens[id as number] = token;
    kinds[id as number] = kind;
    ids.set(token, id as number);
  };
  const isByte = (token: string) => byPieces && /^<0x[0-9A-F]{2}>$/.test(token);
  for (const token of Object.keys(vocab)) put(vocab[token], token, isByte(token) ? KIND.byte : KIND.normal);
  if (added !== undefined && !Array.isArray(added)) throw refuse('added_tokens to be a list', added);
  for (const one of (added ?? []) as readonly (Json | null)[])
    put(one?.id, one?.content, one?.special === true ? KIND.control : KIND.userDefined);
  return { tokens: tokens.map((token, id) => token ?? padding(id)), kinds, ids };
}

/** Of bytes, cut into words first. */
function bytePairs(tokenizer: Json, model: Json, merges: readonly unknown[], refuse: Refuse): Pairs {
  const { pre_tokenizer: step, normalizer } = tokenizer;
  const found = PRE_TOKENIZERS.find(({ json }) => sameStep(json, step));
  const known = PRE_TOKENIZERS.map(({ label }) => label).join(', ');
  if (found === undefined) throw refuse(`pre_tokenizer to be that of one of ${known}`, step ?? null);
  if ((normalizer ?? null) !== null && !sameStep(normalizer, found.normalizer))
    throw refuse(`no normalizer with the pre_tokenizer of ${found.label}`, normalizer);
  if ((model.ignore_merges === true) !== found.ignoreMerges)
    throw refuse(
      `ignore_merges to be ${found.ignoreMerges} with the pre_tokenizer of ${found.label}`,
      model.ignore_merges,
    );
  return [
    ['tokenizer.ggml.model', ['string', 'gpt2']],
    ['tokenizer.ggml.pre', ['string', found.label]],
    ['tokenizer.ggml.merges', ['strings', merges.map((merge) => mergeText(merge, refuse))]],
  ];
}

/** Of pieces, as SentencePiece has them: what is merged first has the best score. */
function piecePairs(
  tokenizer: Json,
  model: Json,
  { tokens, kinds, ids }: Vocabulary,
  merges: readonly unknown[],
  refuse: Refuse,
): Pairs {
  if ((tokenizer.pre_tokenizer ?? null) !== null)
    throw refuse('no pre_tokenizer beside byte_fallback', tokenizer.pre_tokenizer);
  const replace = { type: 'Replace', pattern: { String: ' ' }, content: SPACE };
  const prefixed = { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: SPACE }, replace] };
  const { normalizer } = tokenizer;
  const prefix = sameStep(normalizer, prefixed);
  if (!prefix && !sameStep(normalizer, replace))
    throw refuse(`a normalizer that puts ${SPACE} for spaces`, normalizer ?? null);
  const scores: number[] = new Array(tokens.length).fill(0);
  for (const [rank, merge] of merges.entries()) {
    const [left, right] = mergeOf(merge, refuse);
    const id = ids.get(left + right);
    if (id !== undefined && scores[id] === 0) scores[id] = -rank;
  }
  const unknown = typeof model.unk_token === 'string' ? ids.get(model.unk_token) : undefined;
  if (unknown !== undefined) (kinds as number[])[unknown] = KIND.unknown;
  return [
    ['tokenizer.ggml.model', ['string', 'llama']],
    ['tokenizer.ggml.pre', ['string', 'default']],
    ['tokenizer.ggml.scores', ['f32s', scores]],
    ['tokenizer.ggml.add_space_prefix', ['bool', prefix]],
    ...(unknown === undefined ? [] : [['tokenizer.ggml.unknown_token_id', ['u32', unknown]] as const]),
  ];
}

/** Tokens that texts begin and end with. */
function specialPairs(
  { tokenizer, settings, config }: TokenizerFiles,
  { ids, tokens }: Vocabulary,
  refuse: Refuse,
): Pairs {
  const named = (name: string): number | undefined => {
    const given = settings[`${name}_token`];
    const text = typeof given === 'string' ? given : (given as { content?: unknown } | null | undefined)?.content;
    if (typeof text === 'string' && ids.has(text)) return ids.get(text);
    const id = config[`${name}_token_id`];
    const first = Array.isArray(id) ? id[0] : id;
    return Number.isSafeInteger(first) && first >= 0 && first < tokens.length ? first : undefined;
  };
  const around: Ending = beginOf(tokenizer.post_processor, refuse);
  const idOf = (token: string) => {
    const id = ids.get(token);
    if (id === undefined) throw refuse('the tokens around a text to be in the vocabulary', token);
    return id;
  };
  const begin = around.before === undefined ? named('bos') : idOf(around.before);
  const end = around.after === undefined ? named('eos') : idOf(around.after);
  const pad = named('pad');
  const id = (key: string, value: number | undefined): Pairs =>
    value === undefined ? [] : [[`tokenizer.ggml.${key}_token_id`, ['u32', value]]];
  return [
    ...[...id('bos', begin), ...id('eos', end), ...id('padding', pad)],
    ['tokenizer.ggml.add_bos_token', ['bool', around.before !== undefined]],
    ['tokenizer.ggml.add_eos_token', ['bool', around.after !== undefined]],
  ];
}
