export type { BackendInfo } from './backend/info.js';
export { NBITS, type NBits, type QuantConfig, type ResolvedQuantConfig, SOLVERS, type Solver } from './config.js';
export type { DType } from './dtype.js';
export { HqqError, type HqqErrorCode } from './errors.js';
export type { Packing } from './format.js';
export { backend } from './host-js.js';
export { QuantizedLinear } from './linear.js';
export type { ForwardOptions, LinearOptions } from './linear-options.js';
export {
  type DequantizeOptions,
  dequantize,
  dequantizeSync,
  pack,
  quantize,
  quantizeSync,
  unpack,
} from './quantize.js';
export type { QuantizedTensor, QuantStats, RunOptions, Weight } from './tensor.js';
