export { backend } from './backend/index.js';
export type { BackendInfo } from './backend/info.js';
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
export type { FilePath } from './files/path.js';
export type {
  OwnedFloat32Array,
  OwnedFloat64Array,
  OwnedInt32Array,
  OwnedUint8Array,
  OwnedUint16Array,
} from './matrix/arrays.js';
export { NBITS, type NBits, type Prune, type QuantConfig, type ResolvedQuantConfig } from './matrix/config.js';
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
export type { CompareOptions } from './models/compare.js';
export type { DequantizeModelOptions, DequantizeReport } from './models/dequantize.js';
export {
  compareModels,
  dequantizeModel,
  loadTensors,
  openModel,
  saveTensors,
} from './models/entry.js';
export type { GraphTensor, ImportanceOptions, ImportanceSource } from './models/importance-options.js';
export type { LoadOptions, Model } from './models/model.js';
export type { ConversionRun, EmbeddingBits, MetaDtype, ModelOptions } from './models/options.js';
export type { TensorOptions } from './models/read-tensor.js';
export type {
  CompareReport,
  DenseReport,
  ModelReport,
  Progress,
  TensorComparison,
  TensorInfo,
  TensorReport,
} from './models/report.js';
export type { LoadedTensors, SaveOptions, Tensors } from './models/tensors.js';
export type { TuneOptions } from './models/tuning/option.js';
export { createWorker, quantizeModel } from './queue/entry.js';
export type { QueueOption, QueueOptions, WorkerEvent, WorkerOptions } from './queue/options.js';
export type { QueueWorker } from './queue/worker.js';
export type { AutoOption } from './solvers/auto.js';
export { SOLVERS, type Solver } from './solvers/solvers.js';
