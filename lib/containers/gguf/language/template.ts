import type { HqqError } from '../../../messages/errors.js';

type Json = Readonly<Record<string, unknown>>;

/** Tokens that are put before and after every text; undefined: none is. */
export interface Ending {
  readonly before: string | undefined;
  readonly after: string | undefined;
}

/** What a `post_processor` of tokenizer.json puts around a text. */
export function beginOf(processor: unknown, refuse: (expected: string, got: unknown) => HqqError): Ending {
  const step = (processor ?? undefined) as Json | undefined;
  const steps = step === undefined ? [] : step.type === 'Sequence' ? (step.processors as readonly Json[]) : [step];
  const expected = 'a post_processor of ByteLevel and TemplateProcessing with at most a token before and one after';
  let ending: Ending = { before: undefined, after: undefined };
  if (!Array.isArray(steps)) throw refuse(expected, processor);
  for (const one of steps as readonly Json[]) {
    if (one?.type === 'ByteLevel') continue;
    const parts = one?.type === 'TemplateProcessing' ? one.single : undefined;
    if (!Array.isArray(parts)) throw refuse(expected, processor);
    const names = parts.map((part: Json | null) => (part?.SpecialToken as Json | undefined)?.id as string | undefined);
    const text = parts.findIndex((part: Json | null) => part?.Sequence !== undefined);
    if (text < 0 || text > 1 || parts.length > text + 2) throw refuse(expected, processor);
    ending = { before: text === 1 ? names[0] : undefined, after: names[text + 1] };
  }
  return ending;
}

/** The `post_processor` that does so; `idOf` gives a token's id. */
export function processorOf({ before, after }: Ending, idOf: (token: string) => number): Json | null {
  if (before === undefined && after === undefined) return null;
  const special = (token: string | undefined, type: number) =>
    token === undefined ? [] : [{ SpecialToken: { id: token, type_id: type } }];
  const text = (id: string, type: number) => [
    ...special(before, type),
    { Sequence: { id, type_id: type } },
    ...special(after, type),
  ];
  const tokens = [before, after].filter((token) => token !== undefined);
  return {
    type: 'TemplateProcessing',
    ...{ single: text('A', 0), pair: [...text('A', 0), ...text('B', 1)] },
    special_tokens: Object.fromEntries(
      tokens.map((token) => [token, { id: token, ids: [idOf(token)], tokens: [token] }]),
    ),
  };
}
