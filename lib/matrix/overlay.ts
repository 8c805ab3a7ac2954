import type { QuantConfig } from './config.js';

/**
 * The options of `over` upon those of `base`. What is undefined is not given. A group size takes the place of a granularity, and the
 * other way round.
 */
export function overlay(base: QuantConfig, over: QuantConfig): QuantConfig {
  const given = Object.fromEntries(Object.entries(over).filter(([, value]) => value !== undefined));
  const gone = 'groupSize' in given ? 'granularity' : 'granularity' in given ? 'groupSize' : undefined;
  return { ...Object.fromEntries(Object.entries(base).filter(([name]) => name !== gone)), ...given };
}
