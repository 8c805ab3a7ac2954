import { lateWindow, readWindows } from '../windows.js';
import type { Architecture } from './architecture.js';

/** Qwen2: q, k and v have a bias, whatever config.json says; late layers may have a window. */
export const QWEN2: Architecture = {
  modelType: 'qwen2',
  defaults: { sliding_window: 4096 },
  describe: (fields, { layers }) => ({ qkvBias: true, windows: readWindows(fields, layers, lateWindow) }),
};
