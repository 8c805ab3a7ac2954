import { HqqError, show } from '../../messages/errors.js';

/** Alternatives that the braces of one pattern may stand for. */
const MAX_ALTERNATIVES = 256;

/** One step of a pattern: a character that fits, or any number of any characters. */
type Step = 'star' | ((char: string) => boolean);

/**
 * Compiles a pattern of `*` (any characters, dots and slashes too), `?` (one), `[abc]`, `[a-z]`, `[!abc]` and `{a,b}`.
 *
 * Ours, and not a library that makes regular expressions: names come from hostile files, and a few stars against a long name
 * keep a backtracking matcher busy for hours. This one takes the name's length times the pattern's, whatever they are.
 *
 * @throws {HqqError} `ERR_INVALID_OPTION` for a pattern that is none.
 */
export function compileWildcard(text: string): (name: string) => boolean {
  if (text === '') throw new HqqError('ERR_INVALID_OPTION', 'Expected a glob, got an empty text.');
  const patterns = expandBraces(text, text).map((alternative) => parse(alternative, text));
  return (name) => patterns.some((steps) => matches(steps, name));
}

function expandBraces(text: string, whole: string): string[] {
  const match = /\{([^{}]*,[^{}]*)\}/.exec(text); // an innermost pair
  if (!match) return [text];
  const [before, after] = [text.slice(0, match.index), text.slice(match.index + match[0].length)];
  const expanded = match[1]!.split(',').flatMap((part) => expandBraces(before + part + after, whole));
  if (expanded.length > MAX_ALTERNATIVES) {
    throw new HqqError(
      'ERR_INVALID_OPTION',
      `Expected a glob of at most ${MAX_ALTERNATIVES} alternatives, got ${show(whole)}.`,
    );
  }
  return expanded;
}

function parse(text: string, whole: string): readonly Step[] {
  const steps: Step[] = [];
  for (let i = 0; i < text.length; i++) {
    const char = text[i]!;
    if (char === '*') {
      if (steps.at(-1) !== 'star') steps.push('star');
    } else if (char === '?') {
      steps.push(() => true);
    } else if (char === '[') {
      const end = text.indexOf(']', i + 2);
      if (end < 0) throw new HqqError('ERR_INVALID_OPTION', `Expected a glob, got ${show(whole)}: its "[" has no "]".`);
      steps.push(characterClass(text.slice(i + 1, end)));
      i = end;
    } else {
      steps.push((other) => other === char);
    }
  }
  return steps;
}

function characterClass(text: string): (char: string) => boolean {
  const negated = text.startsWith('!') || text.startsWith('^');
  const ranges = [...text.slice(negated ? 1 : 0).matchAll(/(.)-(.)|(.)/gsu)].map(([, low, high, one]) => [
    low ?? one!,
    high ?? one!,
  ]);
  return (char) => ranges.some(([low, high]) => low! <= char && char <= high!) !== negated;
}

/** Greedy with one place to return to, the last star: no star before it can do better by taking more. */
function matches(steps: readonly Step[], name: string): boolean {
  let [step, at, star, from] = [0, 0, -1, 0];
  while (at < name.length) {
    const current = steps[step];
    if (current === 'star') [star, from, step] = [step, at, step + 1];
    else if (current?.(name[at]!)) [step, at] = [step + 1, at + 1];
    else if (star >= 0) [step, at, from] = [star + 1, from + 1, from + 1];
    else return false;
  }
  while (steps[step] === 'star') step++;
  return step === steps.length;
}
