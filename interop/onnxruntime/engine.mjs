// onnxruntime-node as installed in this folder.
import { createRequire } from 'node:module';

/** A sentence on why it cannot be had; undefined where it can. */
export function missingOnnxRuntime() {
  try {
    createRequire(import.meta.url).resolve('onnxruntime-node');
    return undefined;
  } catch {
    return 'onnxruntime-node is not installed in interop/onnxruntime: npm run test:interop installs it.';
  }
}

/** Its exports. */
export const openOnnxRuntime = async () => (await import('onnxruntime-node')).default;
