import { lateWindow, readWindows } from '../windows.js';
import type { Architecture } from './architecture.js';

/** Qwen3: norms of queries and keys, head by head. */
export const QWEN3: Architecture = {
  modelType: 'qwen3',
  // What a file that does not say head_dim has, whatever the hidden size.
  defaults: { head_dim: 128, sliding_window: 4096 },
  describe: (fields, { layers }) => ({ headNorms: 'each', windows: readWindows(fields, layers, lateWindow) }),
};
