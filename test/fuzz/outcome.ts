import { HqqError, type HqqErrorCode } from '../../lib/messages/errors.js';

/** A fuzzer makes input number `n` of a seed and tries it; what it throws is a finding. True: the input was accepted. */
export interface Target {
  readonly name: string;
  /** Inputs that CI tries, and that one run of `npm run fuzz` tries. */
  readonly quick: number;
  readonly full: number;
  tryOne(seed: number, input: number): boolean | Promise<boolean>;
}

/** Longest message: names in it are cut. */
const MAX_MESSAGE = 2000;

/** What `action` gives; undefined when it refuses as it should: an HqqError of one of `codes`, in clean words. */
export function attempt<T>(codes: readonly HqqErrorCode[], action: () => T): T | undefined {
  try {
    return action();
  } catch (error) {
    return refusal(codes, error);
  }
}

/** The same for what takes its time. */
export async function attemptLater<T>(
  codes: readonly HqqErrorCode[],
  action: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await action();
  } catch (error) {
    return refusal(codes, error);
  }
}

function refusal(codes: readonly HqqErrorCode[], error: unknown): undefined {
  if (!(error instanceof HqqError)) throw error;
  const { code, message } = error;
  const finding = (what: string) =>
    new Error(`${what}: ${code} ${JSON.stringify(message.slice(0, 300))}`, { cause: error });
  if (!codes.includes(code)) throw finding('a code that is not the caller’s to expect');
  if (/[\p{C}\u2028\u2029]/u.test(message)) throw finding('a message that could rewrite a terminal');
  if (message.length > MAX_MESSAGE) throw finding(`a message of ${message.length} characters`);
  if (/\bat .*:\d+:\d+|\[object /.test(message)) throw finding('a message that nobody wrote');
  return undefined;
}

/** Throws a finding unless `ok`. */
export function demand(ok: boolean, what: string): asserts ok {
  if (!ok) throw new Error(what);
}
