import type { SentenceEncoder } from '../runtime/encoder/sentences.js';
import { Failure } from './failure.js';
import type { Limits } from './limits.js';
import type { Schema } from './schema.js';

/** What a server needs of an encoder. */
export type ServedEncoder = Pick<SentenceEncoder, 'encode' | 'embed' | 'maxTokens' | 'vocabSize'>;

/** The body of a request for vectors; a schema has checked it. */
export interface EmbeddingBody {
  readonly input: string | readonly number[] | readonly (string | readonly number[])[];
  readonly model?: string | null;
  readonly encoding_format?: 'float' | 'base64' | null;
}

export const embeddingSchema = (vocabSize: number): Schema => {
  const ids = { type: 'array', items: { type: 'integer', minimum: 0, maximum: vocabSize - 1 }, minItems: 1 };
  const string = { type: 'string', minLength: 1 };
  const most = { minItems: 1, maxItems: 2048 };
  return {
    type: 'object',
    required: ['input'],
    properties: {
      input: {
        description: `a text that is not empty or a list of token ids in [0, ${vocabSize - 1}], or a list of up to 2048 of either`,
        anyOf: [string, { type: 'array', items: string, ...most }, { type: 'array', items: ids, ...most }, ids],
      },
      model: { description: 'a text', type: 'string', nullable: true },
      encoding_format: { description: '"float" or "base64"', enum: ['float', 'base64', null] },
      dimensions: { description: 'null: vectors are as long as the model makes them', type: 'null' },
    },
  };
};

/** Vectors of texts, as OpenAI's API has them. @throws {Failure} for a text that is too long */
export async function embed(
  encoder: ServedEncoder,
  name: string,
  { input, encoding_format }: EmbeddingBody,
  { tokenCharacters }: Limits,
  signal: AbortSignal,
): Promise<{ readonly answer: object; readonly tokens: number }> {
  const list = typeof input === 'string' || typeof input[0] === 'number' ? [input] : input;
  const most = encoder.maxTokens;
  const tooLong = (what: string) =>
    new Failure(400, `${what} are served.`, { param: 'input', code: 'context_length_exceeded' });
  const texts: (readonly number[])[] = [];
  for (const [i, one] of (list as readonly (string | readonly number[])[]).entries()) {
    if (typeof one === 'string' && one.length > most * tokenCharacters)
      throw tooLong(`Text ${i} has ${one.length} characters; at most ${most * tokenCharacters}`);
    const ids = typeof one === 'string' ? await encoder.encode(one, { signal }) : one;
    if (ids.length > most) throw tooLong(`Text ${i} has ${ids.length} tokens; at most ${most}`);
    texts.push(ids);
  }
  const data: object[] = [];
  for (const [index, ids] of texts.entries()) {
    const vector = await encoder.embed(ids, { signal });
    const { buffer, byteOffset, byteLength } = vector;
    const bytes = Buffer.from(buffer, byteOffset, byteLength); // little-endian, as on every machine that Node runs on
    data.push({
      ...{ object: 'embedding', index },
      embedding: encoding_format === 'base64' ? bytes.toString('base64') : Array.from(vector),
    });
  }
  const tokens = texts.reduce((sum, { length }) => sum + length, 0);
  const usage = { prompt_tokens: tokens, total_tokens: tokens };
  return { answer: { object: 'list', data, model: name, usage }, tokens };
}
