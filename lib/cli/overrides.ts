import type { QuantConfig } from '../matrix/config.js';
import { show } from '../messages/errors.js';
import { suggestion } from '../messages/suggestion.js';
import { type Flag, kebab, readValue, UsageError } from './flags.js';
import { QUANT_FLAGS } from './quant-flags.js';

/** `--override 'glob:nbits=8,group-size=32'`: what some tensors get instead. */
type Override = readonly [glob: string, config: Partial<QuantConfig>];

/** The options that it takes. */
const NAMES = Object.keys(QUANT_FLAGS) as (keyof typeof QUANT_FLAGS)[];

const EXAMPLE = "'model.layers.0.*:nbits=8,group-size=32'";

/** Text becomes an `Override`; what it may not be is thrown, not returned, since there is more than one way to be wrong. */
function parseOverride(given: string): Override {
  // The last colon: a glob may hold one, values do not.
  const at = given.lastIndexOf(':');
  const glob = given.slice(0, Math.max(at, 0));
  const settings = given.slice(at + 1);
  if (glob === '' || settings.trim() === '') {
    throw new UsageError(
      `Expected --override to be a glob, a colon and options, as in ${EXAMPLE}, got ${show(given)}.`,
    );
  }
  const config: Record<string, unknown> = {};
  for (const setting of settings.split(',')) {
    const [typed, value] = setting.trim().split(/=(.*)/s) as [string, string | undefined];
    const name = NAMES.find((option) => kebab(option) === typed);
    if (name === undefined) throw unknownOption(typed);
    if (name in config) throw new UsageError(`${typed} is given twice in --override ${show(given)}.`);
    config[name] = readSetting(name, typed, value);
  }
  return [glob, config];
}

function readSetting(name: keyof typeof QUANT_FLAGS, typed: string, value: string | undefined): unknown {
  const label = `${typed} in --override`;
  if (QUANT_FLAGS[name].parse === undefined) {
    // A switch: its bare name means true.
    if (value === undefined || value === 'true') return true;
    if (value === 'false') return false;
    throw new UsageError(`Expected ${label} to be true or false, got ${show(value)}.`);
  }
  if (value === undefined || value === '') throw new UsageError(`Expected a value in --override: ${typed}=<value>.`);
  return readValue(QUANT_FLAGS[name] as Flag<unknown>, label, value);
}

function unknownOption(typed: string): UsageError {
  const known = NAMES.map(kebab);
  return new UsageError(
    `Unknown option ${show(typed)} in --override.${suggestion(typed, known)} Options: ${known.join(', ')}.`,
  );
}

export const OVERRIDE: Flag<readonly Override[]> = {
  help: `other options for what a glob matches: ${EXAMPLE}`,
  value: 'glob:options',
  parse: parseOverride,
  repeats: true,
};

/** What `quantizeModel` takes. Options of a glob that is given twice are joined; the later one wins. */
export function toOverrides(list: readonly Override[] = []): Record<string, Partial<QuantConfig>> {
  const joined = new Map<string, Partial<QuantConfig>>();
  for (const [glob, config] of list) joined.set(glob, { ...joined.get(glob), ...config });
  return Object.fromEntries(joined);
}
