export { backend } from './backend/index.js';
export type { BackendInfo } from './backend/info.js';
export type { CompareOptions } from './checkpoint/compare-models.js';
export type { DequantizeModelOptions, DequantizeReport } from './checkpoint/dequantize-model.js';
export { compareModels, dequantizeModel, openModel, quantizeModel } from './checkpoint/lazy.js';
export type { LoadOptions, Model, TensorOptions } from './checkpoint/model.js';
export type { ConversionRun, MetaDtype, ModelOptions } from './checkpoint/options.js';
export { NBITS, type NBits, type QuantConfig, type ResolvedQuantConfig, SOLVERS, type Solver } from './config.js';
export type { DType } from './dtype.js';
export { HqqError, type HqqErrorCode } from './errors.js';
export type { Packing } from './format.js';
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
export type {
  CompareReport,
  DenseReport,
  ModelReport,
  Progress,
  TensorComparison,
  TensorInfo,
  TensorReport,
} from './report.js';
export type { QuantizedTensor, QuantStats, RunOptions, Weight } from './tensor.js';
