import type { FileKind } from '../files/file-kind.js';
import type { OutputKind } from '../files/output-rules.js';
import type { DType } from '../matrix/dtype.js';
import type { ChosenCodes, Grid } from './grid.js';
import type { KnownModules } from './known-modules.js';
import type { Made, Ranges } from './range.js';
import type { RunnableGraph } from './runnable.js';
import type { StoredType } from './stored-types.js';

// What every file format that holds tensors gives and takes. The path of a model (lib/models) knows these interfaces and no format.

/** A tensor to be written. */
export interface TensorSpec {
  readonly name: string;
  readonly type: StoredType;
  readonly shape: readonly number[];
}

/** A tensor of a file: what it is and where it lies. Plain data, which travels as JSON. */
export interface TensorEntry extends TensorSpec {
  /** Name of the file that holds it: unique in the model. */
  readonly file: string;
  /** Position in the file of the first byte, and of the first byte after the last. */
  readonly begin: number;
  readonly end: number;
  /** Each expert of a stack `[experts, in, out]` lies in the file as its transpose, and is read faster so. Absent: it does not. */
  readonly expertsLie?: 'out-in';
  /** It is no tensor of the file, but a part of one: an expert of a stack. Absent: it is one. */
  readonly part?: TensorPart;
}

/** What of a tensor of a file another one is. Plain data. */
export interface TensorPart {
  /** Name of the tensor. */
  readonly of: string;
  /** Of its elements from `begin` on, in rows of `width`, `each` columns: `first`, `first + step` and so on. Absent: all up to `end`. */
  readonly columns?: Readonly<Record<'first' | 'step' | 'each' | 'width', number>>;
  /** Where the experts of a stack lie as their transpose (`expertsLie`): rows `first`, `first + step` and so on of all experts' outputs. */
  readonly rows?: { readonly first: number; readonly step: number };
}

/** A file of tensors before they are written: where everything goes, and with that its size. */
export interface Layout {
  /** By name, in the order of their bytes. */
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly fileSize: number;
}

/** One of the files that hold a model's tensors. */
export interface SourceFile {
  /** As `TensorEntry.file` has it, and as the output's file will be called. */
  readonly name: string;
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** What goes before its own names of tensors. Absent: nothing does. */
  readonly prefix?: string | undefined;
}

/** A model on disk, open to read: every entry lies inside its file. Any number of reads may run at once. */
export interface TensorSource {
  /** Name of the container. */
  readonly container: string;
  /** Where it was found: as it was given, or in the cache of Hugging Face. */
  readonly path: string;
  /** Name of the container that its tensors were stored for, where that is another: `adopt` made this of it. Absent: `container`. */
  readonly stored?: string;
  /** The model that this is a view of: it is known by that one's digest, too. Absent: it is none. */
  readonly of?: TensorSource;
  /** Files and folders that it is read from, where `path` and `files` do not say so. */
  readonly inputs?: readonly string[];
  /** What it is; a model made from it is the same. */
  readonly kind: OutputKind;
  readonly files: readonly SourceFile[];
  /** By name: file after file, each in the order of its bytes. */
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly envelope: Envelope;
  /**
   * Fills `into` with the bytes of a tensor from its byte `at`. `into` may be touched until the promise settles.
   *
   * @throws {HqqError} `ERR_CHECKPOINT_FORMAT` when the file became shorter, `ERR_IO` when the system cannot read; the
   * signal's reason when aborted.
   */
  read(entry: TensorEntry, at: number, into: Uint8Array, signal?: AbortSignal): Promise<void>;
  /** Blocking twin of `read`. */
  readSync(entry: TensorEntry, at: number, into: Uint8Array): void;
  /** `read` by position in a file, across tensors: many small ones that lie side by side are one call. */
  readSpan(file: string, begin: number, into: Uint8Array, signal?: AbortSignal): Promise<void>;
  /** What a weight is codes of, where it is read as floats but quantized already. Absent, or undefined: it is not. */
  grid?(entry: TensorEntry, signal?: AbortSignal): Promise<Grid | undefined>;
  /** What of that is known unread; `groupSize` 0: its groups are no parts of rows, and `grid` gives nothing. */
  readonly gridSize?: ((entry: { readonly name: string }) => Pick<Grid, 'nbits' | 'groupSize'> | undefined) | undefined;
  /** What was chosen already for a weight that is to be quantized. Absent, or undefined: nothing, a solver is to choose. */
  chosen?(entry: TensorEntry, signal?: AbortSignal): Promise<ChosenCodes | undefined>;
  /** Rows of a matrix, as the model under it has them, in the order that they have in this one. Absent: the same. */
  inOrder?(entry: TensorEntry, rows: Uint8Array): Uint8Array;
  /** The model once for each width, in one output, and of what each prefix of names has (of these `only`; what has none of them stands as it is). Absent: an output holds one form of it. */
  readonly forms?: ((widths: readonly number[], only?: ReadonlySet<string>) => TensorForms) | undefined;
  /** The widths of the forms that it holds side by side, with names as `forms` gives them. Absent: it holds one form. */
  readonly widths?: readonly number[] | undefined;
  /** Its graphs, for an engine that runs them, with what goes into its layers: all, or those of these names. Absent: it has none. */
  graphs?(only?: ReadonlySet<string>): Promise<readonly RunnableGraph[]>;
  /** Files beside its own that hold other forms of it, and are not read. Absent: none. */
  readonly unread?: readonly string[] | undefined;
  /** Closes all files, when the reads under way are done. Closing twice is fine; reading afterwards is an error. */
  close(): Promise<void>;
}

type TensorForms = { readonly source: TensorSource; readonly widths: ReadonlyMap<string, number> };

/** Path of the file that holds a tensor, as messages show it. */
export function pathOfFile({ files }: Pick<TensorSource, 'files'>, { file }: TensorEntry): string {
  return files.find(({ name }) => name === file)?.path ?? file;
}

/** One file being written: tensors in any order, in any pieces, each byte once. */
export interface TensorSink {
  /** Writes `bytes` from byte `at` of tensor `name`. `bytes` must stay as they are until the promise settles. */
  write(name: string, at: number, bytes: Uint8Array): Promise<void>;
  /** Writes `bytes` to `pieces` of a tensor, one after the other: in bytes, sorted, apart. For many short ones. */
  writePieces(name: string, pieces: Ranges, bytes: Uint8Array | Made, signal: AbortSignal): Promise<void>;
  /** Waits until everything is on the disk and makes the file readable. @throws {HqqError} when a tensor is incomplete. */
  finish(): Promise<void>;
  /** Closes the file as it is, when writes under way are done; the caller removes it. After `finish` it does nothing. */
  abandon(): Promise<void>;
}

/** A file format that holds tensors. */
export interface Container extends FileKind {
  readonly name: string;
  /** Whether a folder may be such a model. Absent: a model is always a file. */
  opensFolder?(path: string): Promise<boolean>;
  /**
   * Opens what `begins` or `opensFolder` takes. The first container of the list is given everything else too.
   *
   * @param output What is to be made of it, for files that name each other. Absent: nothing, or what does not matter.
   */
  open(path: string, output?: string): Promise<TensorSource>;
  /** Names of the containers whose models `adopt` takes. Absent: none. */
  readonly adopts?: readonly string[];
  /**
   * A model of another container as it lies in this one: its tensors under the names, in the types and the order that they have here, and
   * what surrounds them. Reads headers alone; closing it closes `source`.
   *
   * @param weightsOnly Whether nothing is written of it, so that it needs no tokenizer. Absent: it does.
   * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for a model that is not known here, with what is not known.
   */
  adopt?(source: TensorSource, weightsOnly?: boolean): Promise<TensorSource>;
  /**
   * Refuses a file of `tensors` tensors whose names have `nameBytes` in all: before hundreds of thousands of them are laid out.
   * `why` says what needs so many. Absent: any number.
   *
   * @throws {HqqError} `ERR_CHECKPOINT_CONTENT`
   */
  demandRoom?(path: string, tensors: number, nameBytes: number, why: string): void;
  /**
   * The layout of the file called `name` of a model. One of thousands of tensors lets the event loop turn meanwhile.
   *
   * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for what could not be read again.
   */
  layout(name: string, specs: readonly TensorSpec[], envelope: Envelope): Layout | Promise<Layout>;
  /** Whether a tensor is of float32 in such files whatever the model's type is. Absent: none is. */
  staysWide?(tensor: TensorSpec): boolean;
  /** Refuses a model of these files, by name, that could not be read again. @throws {HqqError} `ERR_CHECKPOINT_CONTENT` */
  checkReadable?(layouts: ReadonlyMap<string, Layout>): Promise<void>;
  /** What surrounds the tensors of a file, called `name`, that is made from nothing. Absent: every file is made from another. */
  fresh?(name: string, metadata: Readonly<Record<string, string>>): Envelope;
  /** Creates a file, which must not exist, at its full size, with permissions `mode`. Until `finish` it cannot be read as a whole one. */
  create(path: string, layout: Layout, mode?: number): Promise<TensorSink>;
}

/** A linear layer, and the tensors that hold it. Plain data. */
export interface LinearSite {
  /** What the layer is called: `model.layers.0.self_attn.q_proj`. As its weight is, where that is not called `<name>.weight`. */
  readonly name: string;
  readonly weight: TensorEntry;
  readonly bias?: TensorEntry;
  /** Of the layer, whichever way its weight is stored. */
  readonly shape: readonly [outFeatures: number, inFeatures: number];
  /** Whether the weight lies as `[out, in]` or, as its transpose, `[in, out]`. */
  readonly stored: 'out-in' | 'in-out';
  /** The output head that it is part of, which stays as it is unless asked for: `lm_head`. */
  readonly head?: string;
  /** Whether it is, or may be, the embedding matrix (or another layer) under another name; absent where it is not. */
  readonly tied?: 'tied' | 'unsaid';
  /** The module whose weight it is too, where that is known: `model.embed_tokens`. */
  readonly source?: string;
  /** Why it is not taken for a linear layer, and stays as it is unless its name is asked for; absent where it is taken for one. */
  readonly doubt?: Doubt;
  /** It is a table of embeddings that are looked up by token; absent where it is not. */
  readonly embedding?: true;
  /** transformers 5 reads its weight as it loads the model, whatever stands in its place; absent where it does not, as far as is known. */
  readonly readAtLoading?: true;
  /**
   * How many matrices of `shape` the weight is, one after the other: a stack of experts, `[experts, out, in]` or `[experts, in, out]`,
   * as `stored` says of each. The bias is `[experts, out]` then. Absent: it is one matrix. `expertSites` makes layers of them.
   */
  readonly experts?: number;
  /** What the layers of each expert are called that the weight of a stack holds. Absent: one, as the stack is. */
  readonly layers?: ExpertLayers;
  /**
   * What else it is called: by the nodes of a graph that compute with it, or in a folder of Hugging Face. Patterns match these, too.
   * Absent: nothing else.
   */
  readonly nodes?: readonly string[];
  /** What it is called in the model that several forms are made of (`TensorSource.forms`). Absent: it is in no such form. */
  readonly original?: string;
  /** The type that it is computed in, where that is known of each layer. Absent: it is that of the model. */
  readonly computed?: DType;
  /** Names of the tensors that its weight, and its bias, are parts of: one expert of a stack. Absent: they are whole tensors. */
  readonly partOf?: readonly string[];
}

/** Layers whose outputs are those of one matrix: `gate_proj` and `up_proj` of `gate_up_proj`. */
export interface ExpertLayers {
  readonly names: readonly [string, ...string[]];
  /** Outputs of the first and the second take turns. Absent: those of the first come first. */
  readonly interleaved?: true;
}

/** What a matrix may be that is not the weight of a linear layer. */
export interface Doubt {
  /** "embedding", "norm", "not named <module>.weight". */
  readonly reason: string;
  /** It may be the weight of a linear layer all the same. */
  readonly linear: boolean;
}

/** A tensor that cannot be quantized as the weight of a linear layer, whatever the options say. */
export interface OtherTensor {
  readonly entry: TensorEntry;
  readonly reason: string;
  /** It is, or may be, the weight of a linear layer all the same: who loads the model must be told to leave it alone. */
  readonly linear: boolean;
}

/** A layer that takes another form, and the tensors that hold it from then on, without its bias. */
export interface LayerChange {
  readonly name: string;
  readonly tensors: readonly TensorSpec[];
}

/** What a conversion changes around the tensors. */
export interface EnvelopeChange {
  readonly layers: Iterable<LayerChange>;
  /** What files say of their tensors, by their names, in place of what they say. Absent: as it was. */
  readonly metadata?: ReadonlyMap<string, Readonly<Record<string, string>>>;
  /** Members of the model's description (config.json, key-value pairs) that are set, in place of what they are. */
  readonly set: Readonly<Record<string, unknown>>;
  /** Members that go. */
  readonly drop: readonly string[];
  /** Type that every floating-point tensor has from now on: where the description says one, it says this. Absent: as it was. */
  readonly dtype?: DType;
}

/** A file beside those that hold tensors: new text, or a copy of a file of the original. */
export type Companion =
  | { readonly name: string; readonly text: string }
  | { readonly name: string; readonly copyOf: string };

/** Why a model is not one to be quantized. */
export interface Obstacle {
  /** Another tool has quantized it, wholly or in parts; its description says so, but no tensor shows it; or it is an addition to a model. */
  readonly kind: 'quantized' | 'declared' | 'adapter';
  /** It is known by tensors, which `what` names: not only by what is said of the model. */
  readonly seen?: boolean;
  /** Goes on after the model's path: "is quantized already: 14 layers hold GPTQ weights". */
  readonly what: string;
  /** What to do, as a sentence. */
  readonly advice: string;
}

/** What surrounds the tensors and must follow their change: config.json and files, the key-value pairs or the graph of a model. */
export interface Envelope {
  /** The model's description, `config.json`; undefined without one. */
  readonly config: Readonly<Record<string, unknown>> | undefined;
  /** Whether such models say of which class they are (`architectures`), so that people are told where one does not. Absent: they do not. */
  readonly tellsClass?: true;
  /** What people should know of a model that is made from this one. */
  readonly notes: readonly string[];
  /** What its weights were, where they are read as other numbers than the files hold; among the notes too. Absent: they are not. */
  readonly origin?: string | undefined;
  /** All that what is written depends on, but for the tensors and the files that are only copied: models that differ in it differ here. */
  readonly fingerprint: string;
  /** What a file says of its tensors, as texts. Absent: nothing. */
  metadata?(file: string): ReadonlyMap<string, string>;
  /** Why no quantized model can be made of one that holds `entries`; undefined where nothing speaks against it. Looks at names and types. */
  obstacle(entries: ReadonlyMap<string, TensorEntry>): Obstacle | undefined;
  /**
   * Of each tensor, in the order of `entries`, what it is to a quantizer. The bias of a site comes as other tensor too.
   *
   * @param known What is known of the model's modules; without it names and shapes tell.
   */
  linears(entries: ReadonlyMap<string, TensorEntry>, known?: KnownModules): Iterable<LinearSite | OtherTensor>;
  replace(change: EnvelopeChange): Envelope;
  /** What a file of the original will be called. Absent: as it was. */
  outputName?(file: string): string;
  /** The files beside `files`, which hold the tensors: by name, with what each holds. */
  companions(files: ReadonlyMap<string, Iterable<TensorEntry>>): Iterable<Companion>;
}
