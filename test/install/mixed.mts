// Compiled by test:install: an ES module and a CommonJS one (app.cts) have the same classes.
import { QuantizedLinear, quantizeSync } from 'hqq';
import { bias } from './app.cjs';

const layer = new QuantizedLinear(quantizeSync({ data: new Uint8Array(256), dtype: 'float32', shape: [1, 64] }));
export const given: Float32Array | undefined = bias(layer);
