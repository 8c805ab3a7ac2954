// Compiled by test:install, from TypeScript 5.7 on: results can be transferred.
import { dequantizeSync, QuantizedLinear, quantizeSync } from 'hqq';

const q = quantizeSync({ data: new Float32Array(64), shape: [1, 64] });
export const scale: Float32Array<ArrayBuffer> = q.scale;
export const weights: Float32Array<ArrayBuffer> = dequantizeSync(q);
export const halves: Uint16Array<ArrayBuffer> = dequantizeSync(q, { dtype: 'float16' });
export const product: Float32Array<ArrayBuffer> = new QuantizedLinear(q).forwardSync(weights);
