import { inTurns } from '../../../files/event-loop.js';
import { ANY_OBJECT, readSchema, schemaSteps } from './schema.js';
import { advance, isEnd, mayCome, type States, startOf, takesPlain } from './states.js';

/** What a text is to be: one JSON object, or a value of a JSON schema. */
export type TextFormat =
  | 'json'
  | {
      /** The JSON schema. */
      readonly schema: object;
    };

/** Where texts begin of formats that were read ahead. */
const READ = new WeakMap<object, States>();

/**
 * The same format, read now and not again for each text that is kept to it, while the event loop turns. Its schema must stay as it is.
 *
 * @throws {HqqError} `ERR_INVALID_OPTION` for a schema that no text can be kept to; the reason of `signal`.
 */
export async function readFormat({ schema }: Exclude<TextFormat, 'json'>, signal?: AbortSignal): Promise<TextFormat> {
  const format = { schema };
  READ.set(format, startOf(await inTurns(schemaSteps(schema), signal)));
  return format;
}

/** The beginning of a text of a format. @throws {HqqError} `ERR_INVALID_OPTION` for a schema that no text can be kept to. */
export function formatStart(format: TextFormat): States {
  if (format === 'json') return startOf(() => [ANY_OBJECT]);
  return READ.get(format) ?? startOf(readSchema(format.schema));
}

/** Texts of tokens by what they begin with: most of a vocabulary is told from it. */
interface Vocabulary {
  readonly texts: readonly string[];
  readonly byFirst: ReadonlyMap<string, readonly number[]>;
  /** Those that may come within any string, as long as it may be that much longer: nearly all. */
  readonly plain: Uint8Array;
  /** The same as `byFirst` of all others. */
  readonly otherByFirst: ReadonlyMap<string, readonly number[]>;
  /** Most characters of a plain one. */
  readonly longest: number;
}

/** The first character, if there is one. */
function firstOf(text: string): string {
  const point = text.codePointAt(0);
  return point === undefined ? '' : String.fromCodePoint(point);
}

/** What a string may go on with, whatever comes after it: characters that neither end nor escape. */
const PLAIN = /^[^"\\\u0000-\u001f]+$/;

function add(map: Map<string, number[]>, first: string, id: number): void {
  const ids = map.get(first);
  if (ids) ids.push(id);
  else map.set(first, [id]);
}

const VOCABULARIES = new WeakMap<readonly string[], Vocabulary>();

function vocabularyOf(texts: readonly string[]): Vocabulary {
  let known = VOCABULARIES.get(texts);
  if (!known) {
    const [byFirst, otherByFirst] = [new Map<string, number[]>(), new Map<string, number[]>()];
    const plain = new Uint8Array(texts.length);
    let longest = 0;
    texts.forEach((text, id) => {
      const first = firstOf(text);
      if (first === '') return;
      add(byFirst, first, id);
      if (!PLAIN.test(text)) return add(otherByFirst, first, id);
      plain[id] = 1;
      longest = Math.max(longest, text.length);
    });
    known = { texts, byFirst, plain, otherByFirst, longest };
    VOCABULARIES.set(texts, known);
  }
  return known;
}

/** Keeps a text to a format: says which tokens may come next. */
export class JsonText {
  readonly #vocabulary: Vocabulary;
  #states: States;

  /** @param texts Of every token. Special ones are empty, and never come. */
  constructor(start: States, texts: readonly string[]) {
    this.#states = start;
    this.#vocabulary = vocabularyOf(texts);
  }

  /** Whether the value is whole. */
  get done(): boolean {
    return isEnd(this.#states);
  }

  /** Whether a token may come next. */
  accepts(id: number): boolean {
    const text = this.#vocabulary.texts[id];
    return text !== undefined && text !== '' && mayCome(this.#states, text);
  }

  /** Makes -Infinity of the logits of all tokens that may not come next. */
  only(logits: Float32Array): void {
    const { byFirst, otherByFirst, plain, longest } = this.#vocabulary;
    const within = takesPlain(this.#states, longest);
    const taken = new Uint8Array(logits.length);
    if (within) taken.set(plain.subarray(0, logits.length));
    for (const [first, ids] of within ? otherByFirst : byFirst) {
      const begun = advance(this.#states, first);
      if (!begun) continue;
      // Most tokens that may not come are told from their second character.
      const goesOn = new Map<string, boolean>();
      for (const id of ids) {
        const rest = this.#vocabulary.texts[id]!.slice(first.length);
        const second = firstOf(rest);
        let may = goesOn.get(second);
        if (may === undefined) {
          may = mayCome(begun, second);
          goesOn.set(second, may);
        }
        if (may && logits[id] !== -Infinity && mayCome(begun, rest)) taken[id] = 1;
      }
    }
    for (let id = 0; id < logits.length; id++) if (taken[id] === 0) logits[id] = -Infinity;
  }

  /** A token has come that may. */
  push(id: number): void {
    this.#states = advance(this.#states, this.#vocabulary.texts[id]!)!;
  }
}
