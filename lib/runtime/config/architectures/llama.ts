import type { Architecture } from './architecture.js';

/** Llama: what all others are described by their differences from. */
export const LLAMA: Architecture = { modelType: 'llama' };
