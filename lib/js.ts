export type { BackendInfo } from './backend/info.js';
export { backend } from './compute/host-js.js';
export { QuantizedLinear } from './compute/linear.js';
export type { ForwardOptions, LinearOptions, LoraFactors, LoraOptions } from './compute/linear-options.js';
export {
  type DequantizeOptions,
  dequantize,
  dequantizeSync,
  pack,
  quantize,
  quantizeSync,
  unpack,
} from './compute/quantize.js';
export type {
  OwnedFloat32Array,
  OwnedFloat64Array,
  OwnedInt32Array,
  OwnedUint8Array,
  OwnedUint16Array,
} from './matrix/arrays.js';
export { NBITS, type NBits, type QuantConfig, type ResolvedQuantConfig } from './matrix/config.js';
export type { DType } from './matrix/dtype.js';
export type { Packing } from './matrix/format.js';
export type {
  ChosenOptions,
  Float16Numbers,
  FloatWeight,
  MetaCodes,
  QuantizedMeta,
  QuantizedTensor,
  QuantizedTensorLike,
  QuantizeOptions,
  QuantStats,
  RawWeight,
  RunOptions,
  Weight,
} from './matrix/weight.js';
export { HqqError, type HqqErrorCode } from './messages/errors.js';
export type { AutoOption } from './solvers/auto.js';
export { SOLVERS, type Solver } from './solvers/solvers.js';
