import type { QuantConfig } from './config.js';
import { PENALTIES, type Penalty } from './solver-options.js';

/**
 * The options of `over` upon those of `base`. What is undefined is not given. A group size takes the place of a granularity, and a solver
 * that of penalties which it does not read, and the other way round.
 */
export function overlay(base: QuantConfig, over: QuantConfig): QuantConfig {
  const given = Object.fromEntries(Object.entries(over).filter(([, value]) => value !== undefined));
  const gone = new Set<string>();
  if ('groupSize' in given) gone.add('granularity');
  else if ('granularity' in given) gone.add('groupSize');
  const penalties = Object.entries(PENALTIES);
  const solver = over.solver ?? penalties.find(([name]) => over[name as Penalty] !== undefined)?.[1];
  if (solver !== undefined) {
    gone.add('solver');
    for (const [name, reader] of penalties) if (reader !== solver) gone.add(name);
  }
  return { ...Object.fromEntries(Object.entries(base).filter(([name]) => !gone.has(name))), ...given };
}
