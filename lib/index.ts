export { backend, type BackendInfo } from './backend/index.js';
export { type NBits, NBITS, type QuantConfig, type Solver, SOLVERS } from './config.js';
export type { DType } from './dtype.js';
export { HqqError, type HqqErrorCode } from './errors.js';
export type { Packing } from './format.js';
export { type ForwardOptions, type LinearOptions, QuantizedLinear } from './linear.js';
export { dequantize, type DequantizeOptions, dequantizeSync, pack, quantize, quantizeSync, unpack } from './quantize.js';
export type { QuantizedTensor, QuantStats, RunOptions, Weight } from './tensor.js';
