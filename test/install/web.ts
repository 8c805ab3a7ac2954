// Compiled for a browser: without the declarations of Node.
import { backend, dequantize, QuantizedLinear, quantize } from 'hqq/js';

export async function show(into: HTMLElement, signal: AbortSignal): Promise<void> {
  const q = await quantize({ data: new Float32Array(64), dtype: 'float32', shape: [1, 64] }, {}, { signal });
  const weights: Float32Array = await dequantize(q);
  into.textContent = `${backend().name} ${weights.length} ${new QuantizedLinear(q).forwardSync(weights).length}`;
}
