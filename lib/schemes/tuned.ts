import type { Machine } from '../compute/run.js';
import type { ChosenCodes } from '../containers/grid.js';
import type { OwnedFloat32Array } from '../matrix/arrays.js';
import type { ZeroPoint } from '../solvers/solver.js';

// Layers whose codes are tuned: whoever tunes them moves codes, scales and zeros, and knows of no format.

/** What a layer came to. */
export interface TunedResult {
  readonly chosen: ChosenCodes;
  /** The numbers that are stored, `[outFeatures, inFeatures]`. */
  readonly values: Float32Array<ArrayBuffer>;
}

/** Scales and zeros as they will be stored. */
export interface SettledScales {
  readonly scale: Float32Array;
  readonly zero: Float32Array;
  /**
   * Stores codes that were chosen with them, `[rows, cols]`, one a byte.
   *
   * @param values The numbers of these codes, `(code - zero) * scale`: rewritten where others are stored, and given back.
   */
  store(codes: Uint8Array, values: Float32Array<ArrayBuffer>): Promise<TunedResult>;
}

/** A layer as a solver left it: weights are near `(code - zero) * scale`, with codes from 0 to `maxCode`. */
export interface TunedStart {
  /** Of the grouped matrix: each row is a group on axis 1, each column on axis 0. */
  readonly rows: number;
  readonly cols: number;
  readonly axis: 0 | 1;
  readonly maxCode: number;
  readonly zeroPoint: ZeroPoint;
  /** Whether codes alone are tuned: scales and zeros stay. */
  readonly codesOnly?: boolean;
  /** Whether weights that are zero stay so. */
  readonly sparse?: boolean;
  /** `[outFeatures, inFeatures]`: what codes are of. */
  readonly weights: Float32Array;
  /** `[groups]` */
  readonly scale: Float32Array;
  readonly zero: Float32Array;
  /** What the solver's codes are stored as, where these are not the nearest ones. */
  readonly solved?: TunedResult;
  /** The arrays may be rounded in place. */
  settle(scale: OwnedFloat32Array, zero: OwnedFloat32Array, machine: Machine): Promise<SettledScales>;
}

/** How layers are tuned that are stored as blocks: what is chosen for one (`ChosenCodes.codes`) is the bytes of its blocks, without scales and zeros beside. */
export interface BlockTuning<Form, Layer> {
  /** Why a layer cannot be, in words; undefined: it can. */
  obstacle(form: Form): string | undefined;
  /** Bytes of a layer's blocks. */
  bytes(form: Form): number;
  /** Solves a layer, `floats` being its weights. @throws {HqqError} as `Scheme.encode` */
  begin(
    layer: Layer,
    floats: Float32Array,
    importance: Float32Array | undefined,
    machine: Machine,
  ): Promise<TunedStart>;
  /** The numbers that are stored of a layer that is not tuned, likewise; `floats` may be some of its rows, whose numbers they are then. */
  solve(
    layer: Layer,
    floats: Float32Array,
    importance: Float32Array | undefined,
    machine: Machine,
  ): Promise<Float32Array>;
}
