/**
 * The seam: what the C++ addon and `lib/backend/js/backend.ts` both implement.
 *
 * Everything here is typed arrays and numbers. Matrices are row-major; arrays are allocated by the caller and borrowed
 * until the task settles. Defaults, messages and meaning belong to lib/: arguments are valid when they arrive, and a
 * backend checks again only what memory safety rests on.
 */

/** A place in the list of formats: see `Constants`. */
export type FormatId = number;

/** 0 float32, 1 float16, 2 bfloat16: see `Constants`. */
export type DTypeId = 0 | 1 | 2;

/** A place in the list of solvers: see `Constants`. */
export type SolverId = number;

/** Which zeros a group may have, a place in a list: see `Constants`. */
export type ZeroKindId = number;

/** Weights in one of the three element types; the two 16-bit ones as raw bits. */
export type FloatBits = Float32Array | Uint16Array;
export type Words = Uint8Array | Int32Array;

/** The grouped matrix `[rows, cols]` and its packed form `[step, cols]`, both ways of `pack` and `unpack`. */
export interface PackArgs {
  readonly rows: number;
  readonly cols: number;
  /** Rows of the packed matrix: field `f` of packed row `r` is row `f * step + r`; rows past `rows` are zero. */
  readonly step: number;
  readonly format: FormatId;
  readonly codes: Uint8Array;
  readonly packed: Words;
  readonly threads: number;
}

/**
 * Codes in 32-bit words, as engines' formats have them: each line of codes becomes one of words. A line is a row, as one little-endian
 * bit stream, whose last word is filled up with zeros; or, with `order`, eight rows of 4-bit codes: word `i` has that of column `i` of
 * row `order[j]` in bits `4 * j` and up.
 */
export interface PackWordsArgs {
  readonly rows: number;
  readonly cols: number;
  /** 1 to 8. */
  readonly bits: number;
  /** `[rows, cols]`; of each, what is beyond `bits` is left out. */
  readonly codes: Uint8Array;
  /** Empty, or eight numbers from 0 to 7. */
  readonly order: Int32Array;
  /** Whether lines are columns of the words, not rows. */
  readonly turned: boolean;
  /** Words from one row of `words` to the next, of which those behind a row's own stay as they are. */
  readonly step: number;
  readonly words: Int32Array;
  readonly threads: number;
}

/**
 * One number for each input feature of the weight matrix, in which a chunk's groups may start anywhere: weight `i` of group `g`
 * has the feature `(starts[g] + i * stride) % values.length`.
 *
 * A group whose weights all have the same importance, which may be 0, is solved as without, to the bit.
 */
export interface ImportanceArgs {
  /** `[inFeatures]`, finite, at least 0. */
  readonly values: Float32Array;
  /** `[groups]` */
  readonly starts: Int32Array;
  /** From a weight of a group to its next: 1 where groups are parts of rows, the columns of the whole grouped matrix on axis 0. */
  readonly stride: number;
}

export interface QuantizeArgs {
  /** The grouped matrix `[rows, cols]`, which is the weight matrix in its own order. */
  readonly weights: FloatBits;
  readonly dtype: DTypeId;
  readonly rows: number;
  readonly cols: number;
  /** 1: each row is a group. 0: each column is a group. */
  readonly axis: 0 | 1;
  /** Highest code. */
  readonly maxCode: number;
  /** What finds the scale and zero of each group. */
  readonly solver: SolverId;
  /** The solver's own numbers: its file in native/kernels/solve/ and its row in lib/solvers/solvers.ts say which. */
  readonly parameters: Float32Array;
  readonly zeroKind: ZeroKindId;
  /** Use the reference's absolute guards for the range that solvers start from. */
  readonly referenceGuards: boolean;
  /** How much the error of each weight counts; left out: all count alike. */
  readonly importance?: ImportanceArgs | undefined;
  readonly format: FormatId;
  readonly step: number;
  /** Groups that are solved together; the unit over which `stats` are summed. */
  readonly block: number;
  /** Type that scale and zero will be stored in: `stats` are measured with them rounded to it. */
  readonly metaDtype: DTypeId;
  /** Scales are rounded to it before codes are chosen; float32: not at all. What the type does not hold stays as it is. */
  readonly scaleDtype: DTypeId;
  /** `[step, cols]`, written. */
  readonly packed: Words;
  /** `[groups]`, written, not rounded to `metaDtype`. */
  readonly scale: Float32Array;
  readonly zero: Float32Array;
  /**
   * `[5]`, written: sum of |W - W'|, sum of (W - W')^2, sum of W^2, most iterations of a group, and the index of the
   * first weight that is not finite, or -1 (then the rest is meaningless).
   */
  readonly stats: Float64Array;
  readonly threads: number;
}

/** Gives each weight the code that is nearest, with scale and zero as they are given. */
export interface EncodeArgs
  extends Pick<
    QuantizeArgs,
    'weights' | 'dtype' | 'rows' | 'cols' | 'axis' | 'maxCode' | 'format' | 'step' | 'block' | 'packed' | 'threads'
  > {
  /** `[groups]`, finite; of either sign. Where it is 0 all weights become 0. */
  readonly scale: Float32Array;
  /** `[groups]`, finite. */
  readonly zero: Float32Array;
  /** `[5]`, written: as in `QuantizeArgs`, without iterations. */
  readonly stats: Float64Array;
}

/** Weights to ggml's blocks: lib/matrix/block-types.ts. */
export interface EncodeBlocksArgs {
  /** A place in the list of block types. */
  readonly type: number;
  readonly rows: number;
  /** A multiple of the type's block. */
  readonly cols: number;
  /** `[rows, cols]` */
  readonly weights: FloatBits;
  readonly dtype: DTypeId;
  /**
   * Pairs, at least one, of where the scale and minimum of a sub-block are looked for from: parts of its range that are cut off below
   * and above; for types without minima, the share of its larger side, negative for a scale of the other sign, and one that is not read.
   */
  readonly starts: Float32Array;
  /** Steps from each start, and more from the best of them. */
  readonly steps: number;
  readonly more: number;
  /** Rounds of whole scales, and in how many of the last ones neighbours get codes of their own. */
  readonly rounds: number;
  readonly searches: number;
  /** `[cols]`: how much the errors of each input feature count, finite, at least 0; empty: all alike. */
  readonly importance: Float32Array;
  /** `[rows, cols / weights of a block, bytes of a block]`, written. */
  readonly blocks: Uint8Array;
  /** `[5]`, written: as in `QuantizeArgs`, with `rounds` for iterations. */
  readonly stats: Float64Array;
  readonly threads: number;
}

/** ggml's blocks, which follow each other. */
interface BlocksArgs {
  readonly type: number;
  readonly blocks: Uint8Array;
  readonly threads: number;
}

/** The numbers of blocks: the bits that ggml gives. */
export interface DecodeBlocksArgs extends BlocksArgs {
  /** Written. */
  readonly out: Float32Array;
}

/** Codes of blocks, and a scale and zero of each sub-block: `(code - zero) * scale` is the number, but for rounding. */
export interface SplitBlocksArgs extends BlocksArgs {
  /** Written. */
  readonly codes: Uint8Array;
  readonly scale: Float32Array;
  readonly zero: Float32Array;
}

/** The least and the greatest weight of each group. */
export interface ExtremesArgs {
  /** The grouped matrix `[rows, cols]`, as in `QuantizeArgs`. */
  readonly weights: FloatBits;
  readonly dtype: DTypeId;
  readonly rows: number;
  readonly cols: number;
  readonly axis: 0 | 1;
  /** `[groups]`, written; of a group that holds a NaN, anything. */
  readonly least: Float32Array;
  readonly most: Float32Array;
  readonly threads: number;
}

/** A quantized matrix: the grouped matrix `[rows, cols]`, packed into `[step, cols]`, and a scale and zero for each group. */
export interface QuantizedArgs {
  readonly packed: Words;
  readonly format: FormatId;
  readonly rows: number;
  readonly cols: number;
  readonly step: number;
  readonly axis: 0 | 1;
  readonly scale: Float32Array;
  readonly zero: Float32Array;
}

export interface DequantizeArgs extends QuantizedArgs {
  /** Type of `out`. */
  readonly dtype: DTypeId;
  /** Round to `dtype` after each operation, as the reference computes, instead of once at the end. */
  readonly roundEach: boolean;
  /** `[rows, cols]`, written. */
  readonly out: FloatBits;
  readonly threads: number;
}

export interface DistanceArgs {
  readonly a: FloatBits;
  readonly aDtype: DTypeId;
  readonly b: FloatBits;
  readonly bDtype: DTypeId;
  /** `[4]`, written: sum of |a - b|, sum of (a - b)^2, sum of a^2, largest |a - b|; in float64. */
  readonly stats: Float64Array;
  readonly threads: number;
}

/** `to = from`, rounded to its type. The arrays may not overlap. */
export interface ConvertArgs {
  readonly from: FloatBits;
  readonly fromDtype: DTypeId;
  /** As long as `from`, written. */
  readonly to: FloatBits;
  readonly toDtype: DTypeId;
  readonly threads: number;
}

/** `to[c][r] = from[r][first + c]`: columns of a matrix as rows, bit by bit. The arrays may not overlap. */
export interface TurnArgs {
  /** `[rows, stride]` */
  readonly from: FloatBits;
  readonly dtype: DTypeId;
  readonly rows: number;
  readonly stride: number;
  /** The first column, of `cols`. */
  readonly first: number;
  readonly cols: number;
  /** `[cols, rows]`, written. */
  readonly to: FloatBits;
  readonly threads: number;
}

/** A weight matrix whose groups are parts of rows, laid out for `linear`: see lib/matrix/panels.ts. */
export interface PanelArgs {
  /**
   * `[4]`: outFeatures, inFeatures, groupSize (a divisor of inFeatures, at most `limits.group`), format. Or `[6]`, with the zero that all groups
   * share, a code, or -1 where each has its own; and 1 where `meta` is in float16, 0 where it is in float32, as it is for `[4]`.
   */
  readonly shape: Int32Array;
  /** `[panels, groups of a row, bytes of a group]` */
  readonly codes: Uint8Array;
  /** `[panels, groups of a row, 2, 16]`: scales, then zeros; or `[panels, groups of a row, 16]` where all groups share a zero. */
  readonly meta: FloatBits;
}

/** Writes `codes` and `meta`, in which `scale` and `zero` have to fit. */
export interface LayOutArgs extends PanelArgs {
  /** Packed rows. */
  readonly step: number;
  /** `[step, groupSize]` */
  readonly packed: Words;
  readonly scale: Float32Array;
  readonly zero: Float32Array;
  readonly threads: number;
}

/** `(code - zero) * scale`: the bytes that `dequantize` gives. */
export interface ExpandArgs extends PanelArgs {
  /** `[outFeatures, inFeatures]`, written. */
  readonly out: Float32Array;
  readonly threads: number;
}

export interface LayerArgs extends PanelArgs {
  /** `[outFeatures]`, or empty. */
  readonly bias: Float32Array;
  /** `[batch, outFeatures]`, written. */
  readonly out: Float32Array;
}

/** `out = x . W^T + bias` for each layer. */
export interface LinearArgs {
  readonly layers: readonly LayerArgs[];
  /** `[batch, inFeatures]`. May not overlap an `out`. */
  readonly x: Float32Array;
  /** Round x to bytes, 32 numbers of a group at a time: then the result has the same bits on every backend. */
  readonly int8: boolean;
  readonly threads: number;
}

/** The same for any quantized matrix, dequantized in tiles. */
export interface LinearTiledArgs extends QuantizedArgs {
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly bias: Float32Array;
  readonly x: Float32Array;
  readonly out: Float32Array;
  readonly threads: number;
}

/** `out[b, o] = bias[o] + sum over i of x[b, i] * weights[o, i]`, all float32. A row's bits do not depend on its batch. */
export interface DenseLinearArgs {
  readonly batch: number;
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** `[batch, inFeatures]` */
  readonly x: Float32Array;
  /** `[outFeatures, inFeatures]` */
  readonly weights: Float32Array;
  /** `[outFeatures]`; empty: none. */
  readonly bias: Float32Array;
  /** `[batch, outFeatures]`, written. */
  readonly out: Float32Array;
  readonly threads: number;
}

/**
 * Gradients of `denseLinear` from those of its outputs: `xGradient[b, i] += sum over o of gradient[b, o] * weights[o, i]` and
 * `weightGradient[o, i] = sum over b of gradient[b, o] * x[b, i]`. A row's bits do not depend on its batch, no bit on `threads`.
 */
export interface DenseLinearGradientArgs
  extends Pick<DenseLinearArgs, 'batch' | 'inFeatures' | 'outFeatures' | 'x' | 'weights' | 'threads'> {
  /** `[batch, outFeatures]`: of the outputs. */
  readonly gradient: Float32Array;
  /** `[batch, inFeatures]`, added to; empty: not wanted, nor are `weights` read. May overlap nothing that is read. */
  readonly xGradient: Float32Array;
  /** `[outFeatures, inFeatures]`, written; empty: not wanted, nor is `x` read. May overlap nothing that is read. */
  readonly weightGradient: Float32Array;
}

/** `out[r] = x[r] / sqrt(mean(x[r]^2) + epsilon) * weight`. */
export interface RmsNormArgs {
  readonly rows: number;
  readonly cols: number;
  readonly epsilon: number;
  /** `[rows, cols]` */
  readonly x: Float32Array;
  /** `[cols]` */
  readonly weight: Float32Array;
  /** `[rows, cols]`, written; may be `x`. */
  readonly out: Float32Array;
  readonly threads: number;
}

/** `out[r] = (x[r] - mean(x[r])) / sqrt(mean((x[r] - mean(x[r]))^2) + epsilon) * weight + bias`. */
export interface LayerNormArgs extends RmsNormArgs {
  /** `[cols]` */
  readonly bias: Float32Array;
}

/** `x = f(x)`: for `gelu` x times the normal distribution's share below it, for `geluTanh` as `geglu` has it, for `relu` `max(x, 0)`. */
export interface ActivationArgs {
  /** Read and written. */
  readonly x: Float32Array;
  readonly threads: number;
}

/**
 * Rotary embedding: in each head, elements `i` and `i + turned / 2` are a pair that is turned by an angle of the row's own,
 * `(a, b) -> (a cos - b sin, b cos + a sin)`.
 */
export interface RopeArgs {
  readonly rows: number;
  readonly heads: number;
  readonly headDim: number;
  /** The first so many elements of a head are turned: an even number. */
  readonly turned: number;
  /** `[rows, turned / 2]` */
  readonly cos: Float32Array;
  readonly sin: Float32Array;
  /** `[rows, heads, headDim]`, read and written. */
  readonly x: Float32Array;
  readonly threads: number;
}

/** Room for some positions of a text. Keys and values are of the type that `AttentionArgs.cacheType` says. */
export interface CacheSegment {
  /** How many positions: a multiple of `keyStrip`. */
  readonly capacity: number;
  /** `[kvHeads, capacity / keyStrip, headDim, keyStrip]`: written at the rows' positions, then read up to each row's own. */
  readonly keys: Float32Array | Uint16Array | Uint8Array;
  /** `[kvHeads, capacity, headDim]`, likewise, as is all that follows. */
  readonly values: Float32Array | Uint16Array | Uint8Array;
  /**
   * Of bytes alone: scales, then least elements, of every `cacheGroup` elements of a key (the last of them may be shorter),
   * `[kvHeads, capacity / keyStrip, groups, 2, keyStrip]`.
   */
  readonly keyMeta: Float32Array;
  /** The same of values, `[kvHeads, capacity, groups, 2]`. */
  readonly valueMeta: Float32Array;
}

/**
 * Causal attention with grouped heads: row `r` is at `positions[r]` of its text, and sees the `window` positions that end there.
 *
 *     out[r, h] = sum over j of softmax_j(scale * q[r, h] . keys[j, g]) * values[j, g]        g = floor(h * kvHeads / heads)
 *
 * With a `softcap`, `softcap * tanh(s / softcap)` stands for each score s.
 */
export interface AttentionArgs {
  readonly rows: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /**
   * `[rows]`, below the capacity of all segments. Read and checked each time that the operation runs, so that a prepared sequence serves every
   * position of a text; one that is out of range is an error of that run.
   */
  readonly positions: Int32Array;
  /** Positions that a row sees, its own among them; 0: all. */
  readonly window: number;
  readonly scale: number;
  /** 0: none. */
  readonly softcap: number;
  /** `[rows, heads, headDim]` */
  readonly q: Float32Array;
  /** `[rows, kvHeads, headDim]`: the rows' own. */
  readonly k: Float32Array;
  readonly v: Float32Array;
  /**
   * What keys and values are kept as, one of `cacheTypes`. What is kept has the same bits on every backend: float16 is rounded half to even,
   * and clipped to what it holds; a code is `round((x - least) / scale)`, with `scale = (most - least) / 255` over a group.
   */
  readonly cacheType: number;
  /** One after the other; a text goes on in the next where one is full. */
  readonly segments: readonly CacheSegment[];
  /** `[rows, heads, headDim]`, written. */
  readonly out: Float32Array;
  readonly threads: number;
}

/** `out = gate / (1 + exp(-gate)) * up`; arrays of one length, `out` may be one of the others. */
export interface SwigluArgs {
  readonly gate: Float32Array;
  readonly up: Float32Array;
  /** Written. */
  readonly out: Float32Array;
  readonly threads: number;
}

/** `out = gate / (1 + exp(-2u)) * up`, where `u = sqrt(2 / pi) * (gate + 0.044715 * gate^3)`: GELU by tanh. As `swiglu` else. */
export type GegluArgs = SwigluArgs;

/** `x = x * factor`, or `softcap * tanh(x * factor / softcap)` where `softcap` is not 0. */
export interface ScaleArgs {
  readonly factor: number;
  readonly softcap: number;
  /** Read and written. */
  readonly x: Float32Array;
  readonly threads: number;
}

/** `out = x[:, from : from + cols]` */
export interface ColumnsArgs {
  readonly rows: number;
  readonly width: number;
  readonly from: number;
  readonly cols: number;
  /** `[rows, width]` */
  readonly x: Float32Array;
  /** `[rows, cols]`, written. */
  readonly out: Float32Array;
  readonly threads: number;
}

/** `to += x`; arrays of one length. */
export interface AddArgs {
  readonly x: Float32Array;
  /** Read and written. */
  readonly to: Float32Array;
  readonly threads: number;
}

// Gradients: from that of what an operation gives (`gradient`) to that of what it was given. A number of an array's gradient is how much a
// loss grows with that number of the array.

/** The gradient of `rmsNorm`. */
export interface RmsNormGradientArgs extends Omit<RmsNormArgs, 'out'> {
  /** `[rows, cols]`, of `out`. */
  readonly gradient: Float32Array;
  /** `[rows, cols]`, of `x`: written, and may be `gradient`; or added to. */
  readonly xGradient: Float32Array;
  /** Whether `xGradient` is added to. */
  readonly adds: boolean;
}

/** The gradient of `layerNorm`. */
export type LayerNormGradientArgs = RmsNormGradientArgs;

/** The gradient of an activation. */
export interface ActivationGradientArgs {
  /** What it was given. */
  readonly x: Float32Array;
  /** As long, of what it gave, then of x: read and written. */
  readonly gradient: Float32Array;
  readonly threads: number;
}

/**
 * The gradient of `attention` for a text of its own: row `r` is at position `r`. Probabilities are computed anew, a few rows at a time.
 */
export interface AttentionGradientArgs
  extends Pick<
    AttentionArgs,
    'rows' | 'heads' | 'kvHeads' | 'headDim' | 'window' | 'scale' | 'softcap' | 'q' | 'k' | 'v' | 'threads'
  > {
  /** False: every row sees all of the text, whatever the window. */
  readonly causal: boolean;
  /** `[rows, heads, headDim]`, of `out`. */
  readonly gradient: Float32Array;
  /** Of q, k and v, written. */
  readonly qGradient: Float32Array;
  readonly kGradient: Float32Array;
  readonly vGradient: Float32Array;
}

/** The gradient of `swiglu`; arrays of one length. */
export interface SwigluGradientArgs extends Omit<SwigluArgs, 'out'> {
  /** Of `out`. */
  readonly gradient: Float32Array;
  /** Of gate and up, written. Neither may be another of the arrays. */
  readonly gateGradient: Float32Array;
  readonly upGradient: Float32Array;
}

/** The gradient of `geglu`. */
export type GegluGradientArgs = SwigluGradientArgs;

/** The gradient of `scale` with a softcap: `gradient = gradient * factor * (1 - (out / softcap)^2)`. Without one it is `scale` itself. */
export interface ScaleGradientArgs {
  readonly factor: number;
  /** Above 0. */
  readonly softcap: number;
  /** What `scale` made of x. */
  readonly out: Float32Array;
  /** As long, of `out`, then of x: read and written. */
  readonly gradient: Float32Array;
  readonly threads: number;
}

/** The gradient of `columns`: `xGradient[:, from : from + cols] += gradient` */
export interface ColumnsGradientArgs extends Omit<ColumnsArgs, 'x' | 'out'> {
  /** `[rows, cols]`, of `out`. */
  readonly gradient: Float32Array;
  /** `[rows, width]`, of x: read and written. */
  readonly xGradient: Float32Array;
}

/** `x = 0` */
export interface ClearArgs {
  /** Written. */
  readonly x: Float32Array;
  readonly threads: number;
}

/** A grouped matrix `[rows, cols]`, as `QuantizeArgs` has it, of float32, and the scale and zero of each group. */
export interface FakeGroupsArgs extends Pick<QuantizeArgs, 'rows' | 'cols' | 'axis' | 'maxCode' | 'threads'> {
  /** `[rows, cols]`, finite. */
  readonly weights: Float32Array;
  /** `[rows, cols]`, what is added to each weight, in levels, before it is rounded; empty: nothing. */
  readonly offsets: Float32Array;
  /** `[groups]`, finite; of either sign. Where it is 0, or below 2^-126, all weights become 0. */
  readonly scale: Float32Array;
  /** `[groups]`, finite. */
  readonly zero: Float32Array;
}

/**
 * What quantized weights stand for: `out = (code - zero) * scale`, `code = clamp(level, 0, maxCode)`,
 * `level = round(weight / scale + zero + offset)`. The same bytes on every backend.
 */
export interface FakeQuantizeArgs extends FakeGroupsArgs {
  /** `[rows, cols]`, written; empty: not wanted. May be `weights`. */
  readonly out: Float32Array;
  /** `[rows, cols]`, written; empty: not wanted. */
  readonly codes: Uint8Array;
}

/**
 * Gradients of `fakeQuantize` from that of `out`, straight through the rounding. Where a level is a code: of the weight 1, of the offset
 * `scale`, of the scale `code - zero - weight / scale`, of the zero 0; where it was clamped: 0, 0, `code - zero` and `-scale`. The same
 * bytes on every backend.
 */
export interface FakeQuantizeGradientArgs extends FakeGroupsArgs {
  /** `[rows, cols]`, of `out`. */
  readonly gradient: Float32Array;
  /** `[rows, cols]`: codes that stay as they are, so that only scales and zeros have gradients, all as of what is clamped; empty: those of the weights. */
  readonly codes: Uint8Array;
  /** `[rows, cols]`, written; empty: not wanted. Where codes are given, neither these nor `weights` and `offsets` are looked at. */
  readonly weightGradient: Float32Array;
  readonly offsetGradient: Float32Array;
  /** `[groups]`, written; empty: not wanted. */
  readonly scaleGradient: Float32Array;
  readonly zeroGradient: Float32Array;
}

/**
 * A step of `fakeQuantize`'s offsets, scales and zeros against the signs of their gradients, and `out` after it; each weight is read once.
 * The same bytes on every backend.
 *
 * Offsets stay within 0.5 of 0. `scale = startScale * factor`, `zero = startZero + shift`, of integer zeros the nearest code, of symmetric
 * ones `zero` as it is.
 */
export interface FakeQuantizeStepArgs extends FakeGroupsArgs {
  /** Here read and written, as `scale` and `zero` are. */
  readonly offsets: Float32Array;
  readonly zeroKind: ZeroKindId;
  /** `[rows, cols]`, of what `out` was before, finite. */
  readonly gradient: Float32Array;
  /** `[rows, cols]`, written. */
  readonly out: Float32Array;
  /** `[groups]`: what `scale` and `zero` were at the start. */
  readonly startScale: Float32Array;
  readonly startZero: Float32Array;
  /** `[groups]`, read and written: 1 at the start. */
  readonly factor: Float32Array;
  /** `[groups]`, read and written: 0 at the start. */
  readonly shift: Float32Array;
  /** How far each moves. At 0 it stays. */
  readonly offsetStep: number;
  readonly factorStep: number;
  readonly shiftStep: number;
  /** How far factors may be from 1, below 1, and shifts from 0. */
  readonly factorRange: number;
  readonly shiftRange: number;
}

/** Gives memory that is free in the allocator back to the system (glibc; elsewhere nothing). Call it after a collection. */
export interface TrimArgs {
  /** Without effect. */
  readonly threads: number;
}

/** Asks the system for large pages, where it has such, for an array that nothing was written to yet, and tells how it lies. */
export interface LargePagesArgs {
  readonly array: Float32Array;
  /** [1]: is given the bytes from where the array begins to where a large page may; in JavaScript, which knows no addresses, it stays. */
  readonly toPage: Int32Array;
  readonly threads: number;
}

/** An operation and its arguments, as data. */
export type Step = {
  [K in Exclude<keyof Operations, 'sequence'>]: { readonly operation: K; readonly args: Operations[K] };
}[Exclude<keyof Operations, 'sequence'>];

/**
 * Several operations as one: each begins when the one before it is done, on its own number of threads. A layer of a model is a
 * dozen operations of microseconds; started one by one they would wait for the event loop most of the time.
 */
export interface SequenceArgs {
  readonly steps: readonly Step[];
}

/** What `prepare` reads. None of the steps may be `prepared`. */
export interface PrepareArgs {
  readonly sequences: readonly SequenceArgs[];
}

/** Sequences whose arguments were read: an object that only `prepare` makes. It holds their arrays until it is collected. */
export type PreparedSequences = object;

/** One of the sequences that `prepare` of the same backend has read. */
export interface PreparedArgs {
  readonly sequences: PreparedSequences;
  readonly index: number;
}

/** Every operation, by name. */
export interface Operations {
  quantize: QuantizeArgs;
  encode: EncodeArgs;
  extremes: ExtremesArgs;
  encodeBlocks: EncodeBlocksArgs;
  decodeBlocks: DecodeBlocksArgs;
  splitBlocks: SplitBlocksArgs;
  pack: PackArgs;
  unpack: PackArgs;
  packWords: PackWordsArgs;
  dequantize: DequantizeArgs;
  distance: DistanceArgs;
  convert: ConvertArgs;
  turn: TurnArgs;
  layOut: LayOutArgs;
  expand: ExpandArgs;
  linear: LinearArgs;
  linearTiled: LinearTiledArgs;
  denseLinear: DenseLinearArgs;
  denseLinearGradient: DenseLinearGradientArgs;
  fakeQuantize: FakeQuantizeArgs;
  fakeQuantizeGradient: FakeQuantizeGradientArgs;
  fakeQuantizeStep: FakeQuantizeStepArgs;
  rmsNorm: RmsNormArgs;
  layerNorm: LayerNormArgs;
  gelu: ActivationArgs;
  geluTanh: ActivationArgs;
  relu: ActivationArgs;
  rope: RopeArgs;
  attention: AttentionArgs;
  swiglu: SwigluArgs;
  geglu: GegluArgs;
  scale: ScaleArgs;
  columns: ColumnsArgs;
  add: AddArgs;
  rmsNormGradient: RmsNormGradientArgs;
  attentionGradient: AttentionGradientArgs;
  swigluGradient: SwigluGradientArgs;
  gegluGradient: GegluGradientArgs;
  scaleGradient: ScaleGradientArgs;
  columnsGradient: ColumnsGradientArgs;
  layerNormGradient: LayerNormGradientArgs;
  geluGradient: ActivationGradientArgs;
  geluTanhGradient: ActivationGradientArgs;
  reluGradient: ActivationGradientArgs;
  clear: ClearArgs;
  largePages: LargePagesArgs;
  trim: TrimArgs;
  prepared: PreparedArgs;
  sequence: SequenceArgs;
}

/** An operation under way. */
export interface Task {
  /** Resolves when the outputs are written. Rejects with an `Error` whose `code` is `ABORTED` after `cancel`. */
  readonly promise: Promise<void>;
  /** Stops the operation soon; one that has not begun never does. The arrays are free once `promise` settles. */
  cancel(): void;
}

export interface Backend {
  readonly name: 'native' | 'js';
  readonly isa: 'avx512' | 'avx2' | 'neon' | 'scalar' | 'js';
  /** What multiplies bytes in `linear`. */
  readonly dot: 'vnni' | 'maddubs' | 'i8mm' | 'sdot' | 'smull' | 'plain';
  /** Runs now, on the calling thread and its helpers. */
  run<K extends keyof Operations>(operation: K, args: Operations[K]): void;
  /** Runs later, without blocking the event loop. */
  start<K extends keyof Operations>(operation: K, args: Operations[K]): Task;
  /** Reads the arguments of sequences that will run many times: it takes microseconds a step. */
  prepare(args: PrepareArgs): PreparedSequences;
}

/** A way of storing codes: lib/matrix/format.ts, native/core/formats.h. */
export interface FormatConstants {
  /** Bits of a code. */
  readonly codeBits: number;
  readonly wordBytes: number;
  /** Codes in a word. */
  readonly fields: number;
  readonly panel: {
    /** Vectors of a unit. */
    readonly vectors: number;
    /** For each quad of a unit, its pieces: where bits of its codes lie together. */
    readonly quads: readonly (readonly { readonly vector: number; readonly shift: number; readonly mask: number }[])[];
  };
}

/** What both languages are built on, each by itself: test/constants.test.ts compares the addon's with those of lib/. */
export interface Constants {
  /** Lanes of every vector: sums have one partial sum a lane, and end in one tree. */
  readonly lanes: number;
  /** Most groups of a block: one a lane of the widest vector, so that per-group arithmetic is one vector each. */
  readonly blockGroups: number;
  /** Outputs of a panel. */
  readonly panel: number;
  /** Bytes of a quad, four consecutive weights of each output of a panel, and of a vector of a unit. */
  readonly quadBytes: number;
  /** Weights of a group for which x, as bytes, has a step of its own. */
  readonly inputSegment: number;
  /** Keys of the attention's cache that lie side by side, so that sums of scores go along the lanes of vectors, and across none. */
  readonly keyStrip: number;
  /** Elements whose distances are summed together. */
  readonly distanceTile: number;
  /** Elements of a head's key, or value, that have a scale of their own where a cache is bytes. */
  readonly cacheGroup: number;
  /** What caches hold, in the order of their ids. */
  readonly cacheTypes: readonly { readonly name: string; readonly bytes: number }[];
  /** In the order of their ids. */
  readonly formats: readonly FormatConstants[];
  /** Element types of weights, in the order of their ids. */
  readonly dtypes: readonly { readonly name: string; readonly bytes: number }[];
  /** Names, in the order of their ids. */
  readonly solvers: readonly string[];
  /** `float`: any zero. `roundedStart`: likewise, but the solver starts from a whole one. In the order of their ids. */
  readonly zeroKinds: readonly string[];
  readonly limits: {
    /** Weights of a group in panels. */
    readonly group: number;
    readonly threads: number;
    /** Steps of a solver. */
    readonly iterations: number;
    /** Weights of a group that solvers which fit scale and zero together solve beside others. */
    readonly sideBySide: number;
  };
}

/** What the addon exports. */
export interface Addon {
  /** Frozen. */
  readonly constants: Constants;
  /** Instruction sets that were compiled in and that this machine can run, best first. */
  readonly isas: readonly ('avx512' | 'avx2' | 'neon' | 'scalar')[];
  /** Instruction sets that were compiled in. */
  readonly compiled: readonly ('avx512' | 'avx2' | 'neon' | 'scalar')[];
  /** Features of this processor that kernels use, by the names that Linux gives them. */
  readonly features: readonly string[];
  /** What stands behind `parallel_for`. */
  readonly threading: 'openmp' | 'threads';
  /** A backend on one of `isas`. */
  open(isa: string): Backend;
}
