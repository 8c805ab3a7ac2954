import { LoraSet } from './set.js';

/** `later.ts` where everything is one file. */
export const loadLora = async () => LoraSet;
