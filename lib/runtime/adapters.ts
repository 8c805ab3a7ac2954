import { type FilePath, pathOf } from '../files/path.js';
import { HqqError, show } from '../messages/errors.js';
import { suggestion } from '../messages/suggestion.js';
import type { Adapters } from './blocks/lora.js';

/** Which of the adapters that a model was loaded with a call is for: one, or several, which add up; none where it is left out. */
export type AdapterChoice = string | readonly string[];

/** Longest name: requests name them, and answers repeat it. */
const MAX_NAME = 256;

const invalid = (message: string) => new HqqError('ERR_INVALID_OPTION', message);

/** The folders of adapters, by name. @throws {HqqError} `ERR_INVALID_OPTION` */
export function resolveAdapters(given: unknown): ReadonlyMap<string, string> {
  if (given === undefined) return new Map();
  if (typeof given !== 'object' || given === null || Array.isArray(given))
    throw invalid(`Expected adapters to be an object of folders by name, got ${show(given)}.`);
  return new Map(
    Object.entries(given).map(([name, folder]) => {
      if (!isName(name))
        throw invalid(
          `Expected names of adapters to be texts of 1 to ${MAX_NAME} printable characters, got ${show(name)}.`,
        );
      return [name, pathOf(folder as FilePath, `the adapter ${show(name)}`, 'a folder that peft has saved')];
    }),
  );
}

/** Whether an adapter may be called so. */
export function isName(name: string): boolean {
  return name.length > 0 && name.length <= MAX_NAME && !/\p{C}/u.test(name);
}

/** @throws {HqqError} `ERR_INVALID_OPTION` for what is neither a name nor a list of different ones */
export function checkChoice(choice: unknown): asserts choice is AdapterChoice | undefined {
  const names = choice === undefined ? [] : typeof choice === 'string' ? [choice] : choice;
  const isList = Array.isArray(names) && names.every((name) => typeof name === 'string');
  if (!isList || new Set(names).size < names.length)
    throw invalid(`Expected adapter to be a name or a list of different names, got ${show(choice)}.`);
}

/** Those that are chosen, in the order in which they were loaded: what several add is summed up in it. @throws {HqqError} `ERR_INVALID_OPTION` */
export function chooseAdapters(loaded: Adapters, choice: AdapterChoice | undefined): Adapters {
  checkChoice(choice);
  if (choice === undefined) return [];
  const asked = typeof choice === 'string' ? [choice] : choice;
  const names = loaded.map(({ name }) => name);
  const unknown = asked.find((name) => !names.includes(name));
  if (unknown === undefined) return loaded.filter(({ name }) => asked.includes(name));
  const known = names.length > 0 ? `one of ${names.map((name) => show(name)).join(', ')}` : 'left out';
  const advice =
    names.length > 0
      ? suggestion(unknown, names)
      : ' The model was loaded without any: loadLanguageModel(path, { adapters }).';
  throw invalid(`Expected adapter to be ${known}, got ${show(unknown)}.${advice}`);
}
