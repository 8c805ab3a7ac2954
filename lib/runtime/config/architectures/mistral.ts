import { readWindows, slidingWindow } from '../windows.js';
import type { Architecture } from './architecture.js';

/** Mistral: a sliding window. */
export const MISTRAL: Architecture = {
  modelType: 'mistral',
  defaults: { sliding_window: 4096 },
  describe: (fields, { layers }) => ({ windows: readWindows(fields, layers, slidingWindow) }),
};
