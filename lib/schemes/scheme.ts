import type { Operations, Step } from '../../binding.js';
import type { QuantSums } from '../compute/arguments.js';
import type { EnvelopeChange, LinearSite, TensorEntry, TensorSource, TensorSpec } from '../containers/container.js';
import type { ChosenCodes, Grid } from '../containers/grid.js';
import type { Made, Range, Ranges } from '../containers/range.js';
import type { Scratch } from '../containers/scratch.js';
import type { QuantConfig, ResolvedQuantConfig } from '../matrix/config.js';
import type { DType } from '../matrix/dtype.js';
import type { Misfit } from '../matrix/fit.js';
import type { QuantizedTensor } from '../matrix/weight.js';
import type { ZeroPoint } from '../solvers/solver.js';
import type { SurveyMemory } from './survey-memory.js';
import type { BlockTuning } from './tuned.js';

// What every way of storing a quantized layer gives and takes. The path of a model (lib/models) knows these interfaces and no scheme.

/** What is asked of a layer. */
export interface LayerOptions {
  /** As it was given, with the scheme's own defaults: defaults may give way, what was asked for may not. */
  readonly config: QuantConfig;
  /** The type that those who load the model compute in, as far as it says so; else that of its weights. */
  readonly modelDtype: DType;
  /** How scale and zero are stored, where a scheme leaves that open; `auto` lets it choose. */
  readonly metaDtype: 'auto' | 'float16' | 'float32';
  /** One of the scheme's `types`; absent: its own choice. */
  readonly type?: string | undefined;
  /** Of an ONNX file: 4 rounds inputs to 8 bits as they are multiplied, 0 does not. Absent: 4. */
  readonly accuracyLevel?: 0 | 4 | undefined;
  /** The model that the layer is of. */
  readonly model: Pick<TensorSource, 'entries' | 'envelope' | 'gridSize'>;
}

/** Why a layer stays as it is: "stored [in, out]: AWQ has nn.Linear only". It is none that the scheme holds. */
export interface Stays {
  readonly stays: string;
}

/** Why a layer is neither quantized nor left as it is, unless that is asked for. */
export type Refused = Readonly<Record<'refused', string>>;

/** A linear layer that is not quantized. */
export interface StayingLayer {
  /** By the name that the model's files have, or would have. */
  readonly layer: string;
  /** What those who load the model call it. */
  readonly module: string;
}

/** How one layer is quantized and stored. Schemes add what they need; plain data, which travels as JSON. */
export interface LayerForm {
  readonly config: ResolvedQuantConfig & { readonly groupSize: number };
  /** Why it is not what was asked for, if it is not; whether its codes are those that the model has (`TensorSource.gridSize`). */
  readonly adapted?: string;
  readonly kept?: true;
  readonly tails?: true; // a row's last group may be a part of one, filled up with the last weight, which counts nothing
}

/** A layer to be written. Plain data. */
export interface PlannedLayer<Form extends LayerForm = LayerForm> {
  readonly site: LinearSite;
  readonly form: Form;
}

/** What a form comes to, for reports. */
interface FormSummary {
  /** How codes are stored, as the scheme calls it. */
  readonly packing: string;
  /** How scale and zero are stored; absent where they are no floating-point numbers, but codes themselves. */
  readonly metaDtype?: DType;
  /** Bytes of codes, scales and zeros. */
  readonly bytes: number;
}

/** A small tensor, whole. */
export interface WholeTensor extends TensorSpec {
  readonly bytes: Uint8Array;
}

/** A part of a layer that is encoded or decoded by itself. Schemes add what they need: `GroupedChunk`, or which blocks they are. */
export interface Chunk {
  /** Its weights in the weight matrix, row-major, one range after the other. */
  readonly weights: readonly Range[];
  /** Weights of all ranges. */
  readonly count: number;
}

/** What a worker of the pipeline works with. The slot's arrays are the chunk's until it is done. */
export interface WorkRun {
  readonly slot: Scratch;
  readonly threads: number;
  readonly signal: AbortSignal;
  /** How much the errors of each input feature of the layer count, `[inFeatures]`; absent: all alike. */
  readonly importance?: Float32Array | undefined;
  /** What the weights are codes of already, where they are. */
  readonly grid?: Grid | undefined;
  /** Codes, scales and zeros that the layer is to have, where they are chosen already. */
  readonly chosen?: ChosenCodes | undefined;
  /** Runs an operation of the backend. */
  compute<K extends keyof Operations>(operation: K, args: Operations[K]): Promise<void>;
}

/** Bytes for ranges of a tensor, one after the other. */
export interface Piece {
  readonly tensor: string;
  readonly ranges: Ranges;
  /** Bytes of an element of `ranges`. */
  readonly elementBytes: number;
  /** In the slot's memory, or made of what is. */
  readonly bytes: Uint8Array | Made;
}

/** A chunk as it will be stored, and how far that is from its weights. */
export interface Encoded {
  readonly pieces: readonly Piece[];
  readonly sums: QuantSums;
}

/** A quantized layer that was found in a model, checked: its tensors have the sizes that it says. */
export interface StoredLayer {
  /** Name of the scheme. */
  readonly scheme: string;
  /** What the layer is called. */
  readonly name: string;
  /** Whether its weight is called so, too, and not `<name>.weight`. */
  readonly bare: boolean;
  readonly shape: readonly [outFeatures: number, inFeatures: number];
  /** How the weight of the original lies. */
  readonly stored: LinearSite['stored'];
  /** All its tensors but the bias. The first one says where the layer stands among others. */
  readonly entries: readonly [TensorEntry, ...TensorEntry[]];
  readonly bias: TensorEntry | undefined;
  readonly storage: LayerStorage;
}

/** How a quantized layer is stored, for people. */
export interface LayerStorage {
  readonly nbits: number;
  readonly groupSize: number;
  readonly axis: 0 | 1;
  /** As in `FormSummary`, and the next too. */
  readonly packing: string;
  readonly metaDtype?: DType;
  /** Which zeros its groups have; absent: any number. */
  readonly zeroPoint?: ZeroPoint;
  /** 8 where scale and zero are quantized themselves, to a byte each; absent where they are stored as they are. */
  readonly metaBits?: 8;
  /** Type in which the loaders that the scheme is made for compute unless told otherwise; absent: they do not say. */
  readonly computeDtype?: DType;
  /** Codes, scales and zeros. */
  readonly bitsPerWeight: number;
}

/** Where the bytes of a layer go, and what they then are. */
export interface LayerLoad {
  readonly reads: readonly { readonly entry: TensorEntry; readonly into: Uint8Array }[];
  /** What was read as `bytes` of `dtype` and is then widened to `to`. Absent: nothing. */
  readonly widens?: readonly { readonly bytes: Uint8Array; readonly dtype: DType; readonly to: Float32Array }[];
  /** To be called once when `reads` are filled and `widens` done. Absent: there is nothing to prepare. */
  readonly prepare?: () => void;
  /** What is computed of that, then. Absent: nothing. */
  readonly steps?: readonly Step[];
  /** To be called once when `reads` are filled, `widens`, `prepare` and `steps` done. */
  readonly finish: () => Omit<QuantizedTensor, 'stats'>;
}

/** What the chunks of a layer have in common, where only all of its weights tell it: they are looked at once, then encoded. Of one layer. */
export interface Survey<Part extends Chunk = Chunk> {
  /** Each chunk once, in any order; what `badIndex` says is refused. */
  look(chunk: Part, weights: Uint8Array, run: WorkRun): Promise<QuantSums>;
  /** To be called once, when all were looked at: the tensors that are known then, whole. */
  settle(run: WorkRun): Promise<readonly WholeTensor[]>;
  /** `encode` of the scheme, thereafter. */
  encode(chunk: Part, weights: Uint8Array, run: WorkRun): Promise<Encoded>;
}

/** What only the weights of a layer can tell of its form: how large it will be depends on it, so it is asked before anything is written. */
export interface Probe<Form extends LayerForm, Part extends Chunk = Chunk> {
  /** Whether there is something to ask. */
  needed(form: Form): boolean;
  /** The form that a chunk of the weights demands: the same one, or another, which then stays. */
  weights(layer: PlannedLayer<Form>, chunk: Part, weights: Uint8Array, run: WorkRun): Promise<Form>;
  /** The form that scales and zeros of all groups demand, as `weights` has it; what was rounded for one already stays so. */
  scales(form: Form, solved: Pick<ChosenCodes, 'scale' | 'zero'>): Form;
  /** The form that the bias demands, or a part of it. */
  bias(form: Form, values: Float32Array): Form;
}

/** Why layers stay, by their names. */
type Reasons = ReadonlyMap<string, string>;

/** One way of storing quantized layers. */
export interface Scheme<
  Form extends LayerForm = LayerForm,
  Layer extends StoredLayer = StoredLayer,
  Part extends Chunk = Chunk,
> {
  readonly name: string;
  /** As people call it. */
  readonly title: string;
  /** Names of the containers that can hold it. */
  readonly containers: readonly string[];
  /** Tensors that a layer becomes, without its bias. */
  tensorsOf(form: Form): number;
  /** Ends of the names of tensors that only some layers become: no other tensor of a model may be called as a layer and one of them. */
  readonly marks?: readonly string[];
  /** Whether a table of embeddings can be such a layer, which what reads the scheme looks up; and whether errors of groups can be fed back. */
  readonly embeddings?: boolean;
  readonly refines?: boolean;
  /** What may be asked for by name (`type`): the scheme has several ways to store a layer, or to mix them. Absent: nothing. */
  readonly types?: readonly string[];
  /** A layer becomes one tensor that is called as its weight is. Absent: its tensors have names of their own. */
  readonly keepsName?: boolean;
  /** Whether experts of a stack can be such layers, one or two each, called as `expertSites` has it. Absent: stacks stay as they are. */
  experts?(stack: LinearSite): boolean;
  /** What becomes of experts, of stacks too, whose engines load none in this format: `fit` refuses them, or they stay. Absent: they are layers. */
  readonly unloadedExperts?: 'refused' | 'stay';
  /** Whether its layers take what somebody has chosen (`WorkRun.chosen`). Absent: they do not. */
  readonly takesChosen?: boolean;
  /** Whether layers with float zeros keep the codes of a grid (`WorkRun.grid`) of their bits and groups. Absent: it is `kept` that says so. */
  readonly keepsGrids?: true;
  /** How they are tuned. Absent: as codes, scales and zeros. */
  readonly blockTuning?: BlockTuning<Form, PlannedLayer<Form>>;
  /** Options that take other defaults where a model is to become this. Absent: none. */
  readonly defaults?: QuantConfig;
  /** Refuses options (`asked`: as `LayerOptions.config`) that no layer of it could have, with `ERR_INVALID_OPTION`. Absent: there are none. */
  check?(asked: QuantConfig, metaDtype: LayerOptions['metaDtype']): void;
  /**
   * The form of a layer; or why it cannot have the one that was asked for, or none, which are errors; or why it stays as it is.
   * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for a layer that cannot be worked on in bounded memory.
   */
  fit(site: LinearSite, options: LayerOptions): Form | Misfit | Stays | Refused;
  readonly probe?: Probe<Form, Part>;
  /** The tensors that a layer becomes, without its bias. */
  specs(layer: PlannedLayer<Form>): readonly TensorSpec[];
  /** Those of them that are known without the weights. */
  constants(layer: PlannedLayer<Form>): readonly WholeTensor[];
  /** Type in which the layer's bias is stored; undefined: as it was. */
  biasDtype(form: Form): DType | undefined;
  /** The parts of a layer's weight that are encoded one by one, in any order. */
  chunks(form: Form): Iterable<Part>;
  /** @throws {HqqError} `ERR_NON_FINITE_WEIGHT`, `ERR_CHECKPOINT_CONTENT` for what cannot be stored. `weights`: in the type of `numbersOf`. */
  encode(layer: PlannedLayer<Form>, chunk: Part, weights: Uint8Array, run: WorkRun): Promise<Encoded>;
  /** For layers whose chunks cannot be encoded one by one: then it encodes them. @throws {HqqError} `ERR_OUT_OF_MEMORY` */
  survey?(layer: PlannedLayer<Form>, memory: SurveyMemory): Survey<Part> | undefined;
  /** Part of a bias in the type of `biasDtype`. @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for what that cannot hold. */
  encodeBias(layer: PlannedLayer<Form>, values: Float32Array, slot: Scratch): Uint8Array;
  summarize(form: Form): FormSummary;
  /**
   * What is said around the tensors to those who will load the model.
   *
   * @param stays Linear layers, or what may be such, that are not quantized.
   * @param moduleOf What those who load the model call a layer, of the name that its files have. Absent: the same.
   * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for a choice that would be misread.
   */
  declare(
    layers: readonly PlannedLayer<Form>[],
    stays: readonly StayingLayer[],
    moduleOf?: (layer: string) => string,
  ): Omit<EnvelopeChange, 'layers'>;
  /** What every file says of the tensors of the model (`others`: of no layer, and biases). Absent: nothing. */
  metadata?(layers: readonly PlannedLayer<Form>[], others: readonly TensorSpec[]): Readonly<Record<string, string>>;
  /** Whether a text of a file is such a one, which goes when the layers do. Absent: none is. */
  isMetadata?(name: string, text: string): boolean;
  /**
   * Layers that those who load the model would confuse with others, and how: they stay as they are. By the names that its files
   * have. Absent: there are none.
   *
   * @param stays Linear layers that are not quantized, unless somebody asked for that.
   * @param tensors Names of tensors that belong to none of the layers.
   */
  confused?(layers: readonly string[], stays: readonly string[], tensors: Iterable<string>): Reasons;
  /** As `confused`, of layers that those who load the model (`engine`; absent: any) would not load beside the others, and why. */
  unloaded?(layers: readonly PlannedLayer<Form>[], tensors: ReadonlySet<string>, engine?: string): Reasons;
  /** What people should know of layers that are stored so. `stays`: as `declare` has it. */
  notes(layers: readonly PlannedLayer<Form>[], stays: readonly StayingLayer[]): readonly string[];
  /** The tensors that hold a matrix which is quantized already, exactly; `weight` is its name. Absent: it can hold none. */
  hold?(weight: string, tensor: QuantizedTensor): readonly WholeTensor[];
  /** What float zeros are stored less of, rounded after that. Absent: nothing. */
  zeroFrom?(form: Form): number;
  /** By what a model is known to hold such layers, cheaply: "3 layers hold HQQ codes"; undefined when it holds none. */
  traces(source: Pick<TensorSource, 'entries' | 'envelope'>): string | undefined;
  /** Completes "no tensor of it ...", where there are none. */
  readonly mark: string;
  /** Every layer that is stored so, in the order of `entries`. Trusts nothing. @throws {HqqError} `ERR_CHECKPOINT_FORMAT` */
  find(source: TensorSource, signal?: AbortSignal): Promise<readonly Layer[]>;
  /** Members of the description that say how layers are stored: they go when these do. */
  readonly settings: readonly string[];
  /** The parts in which a layer is decoded. @throws {HqqError} as `fit` */
  storedChunks(layer: Layer): Iterable<Part>;
  /** The weights of a chunk, rounded once to `dtype`, in the order of its ranges. In the slot's memory. */
  decode(source: TensorSource, layer: Layer, chunk: Part, dtype: DType, run: WorkRun): Promise<Uint8Array>;
  /** Reads a layer whole. @throws {HqqError} `ERR_OUT_OF_MEMORY` */
  load(layer: Layer): LayerLoad;
  /** Reads the numbers of a layer, where `(code - zero) * scale` of what `load` gives rounds otherwise. Absent, or undefined: it does not. */
  loadNumbers?(
    layer: Layer,
    out: Float32Array,
    threads: number,
  ): (Pick<LayerLoad, 'reads'> & { readonly steps: readonly Step[] }) | undefined;
}
