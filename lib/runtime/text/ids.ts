import { HqqError, show } from '../../messages/errors.js';

/** Token ids. */
export type TokenIds = readonly number[] | Int32Array | Uint32Array;

/** @throws {HqqError} `ERR_INVALID_ARGUMENT` unless `ids` is a list of token ids, and not an empty one. */
export function checkIds(ids: TokenIds, vocabSize: number): void {
  if (!isList(ids) || ids.length === 0)
    throw new HqqError('ERR_INVALID_ARGUMENT', `Expected ids to be a list of token ids, got ${show(ids)}.`);
  for (const id of ids) {
    if (Number.isSafeInteger(id) && id >= 0 && id < vocabSize) continue;
    throw new HqqError(
      'ERR_INVALID_ARGUMENT',
      `Expected every token id to be an integer in [0, ${vocabSize - 1}], got ${show(id)}.`,
    );
  }
}

/**
 * The same for what a tokenizer made of a prompt, which may have tokens that the model lacks.
 *
 * @throws {HqqError} `ERR_INVALID_ARGUMENT`
 */
export function checkEncoded(ids: readonly number[], vocabSize: number): void {
  if (ids.length === 0) {
    const message =
      'Expected a prompt of at least one token, got one of none: the tokenizer puts nothing before a text';
    throw new HqqError('ERR_INVALID_ARGUMENT', `${message}. Begin with a text that is not empty.`);
  }
  const unknown = ids.find((id) => id >= vocabSize);
  if (unknown === undefined) return;
  const message = `Expected the prompt's tokens to be ids in [0, ${vocabSize - 1}], got ${unknown} of the tokenizer`;
  const advice = 'it has tokens that the model does not know, and is perhaps that of another model';
  throw new HqqError('ERR_INVALID_ARGUMENT', `${message}: ${advice}.`);
}

/** @throws {HqqError} `ERR_INVALID_ARGUMENT` unless `prompt` is a text, or a list of token ids. */
export function checkPrompt(prompt: string | TokenIds, vocabSize: number): void {
  if (typeof prompt === 'string') return;
  if (!isList(prompt)) {
    const message = `Expected the prompt to be a text or a list of token ids, got ${show(prompt)}.`;
    throw new HqqError('ERR_INVALID_ARGUMENT', message);
  }
  checkIds(prompt, vocabSize);
}

function isList(ids: unknown): ids is TokenIds {
  return Array.isArray(ids) || ids instanceof Int32Array || ids instanceof Uint32Array;
}
