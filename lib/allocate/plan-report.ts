import type { BitPlan } from '../models/bit-plan.js';

/** A whole model, and what it does on the ids that nothing was chosen on. */
export interface PlanScore {
  /** Mean bits of a code, as `targetBits` counts them. */
  readonly bits: number;
  /** Bytes of the files of tensors. */
  readonly bytes: number;
  /** Mean Kullback-Leibler divergence of its next tokens from those of the model, in nats. */
  readonly divergence: number;
}

/** A target: one of the two. */
export interface PlanTarget {
  /** Mean bits of a code. */
  readonly bits?: number;
  /** Bytes of the files of tensors. */
  readonly bytes?: number;
}

/** A way to quantize a layer that was tried. */
export interface PlanCandidate {
  /** Bits per weight. */
  readonly nbits: number;
  /** Weights per scale and zero; absent: as configured. */
  readonly groupSize?: number;
}

/** What the quantization of layers alone does. */
export interface PlanSensitivity {
  /** Layers that get the same bits. */
  readonly layers: readonly string[];
  /** Mean divergence that it causes, in nats, by candidate. */
  readonly divergence: readonly number[];
}

/** A point of the trade-off: the least loss at a target. */
export interface PlanTradeOff extends PlanTarget {
  /** The sum of the layers' divergences. */
  readonly loss: number;
}

/** What was measured. */
export interface PlanReport {
  /** What was asked for. */
  readonly target: PlanTarget;
  /** `mixed`: what was planned; `uniform`: it did not do better than bits that ask nothing of the model, and these were kept. */
  readonly kept: 'mixed' | 'uniform';
  /** Of what was kept: mean bits of a code. */
  readonly bits: number;
  /** Of what was kept: bytes of the files of tensors. */
  readonly bytes: number;
  /** Of what was kept: bits of a quantized weight, with its scales and zeros. */
  readonly bitsPerWeight: number;
  /** What was planned. */
  readonly planned: PlanScore;
  /** The same width for all where the target is one, else the two nearest widths, the wider one for the first layers. */
  readonly uniform: PlanScore;
  /** On the line between the two nearest widths, at the bits of what was planned; absent where the target is a width. */
  readonly line?: number;
  /** Of each layer, or layers that get the same bits. */
  readonly sensitivity: readonly PlanSensitivity[];
  /** The candidates, in the order of `sensitivity`. */
  readonly candidates: readonly PlanCandidate[];
  /** The trade-off, in the unit of the target. */
  readonly curve: readonly PlanTradeOff[];
  /** What random tokens followed from. */
  readonly seed: number;
  /** On how many ids layers were measured. */
  readonly probeTokens: number;
}

/** A plan with what was measured. */
export interface MeasuredPlan extends BitPlan {
  /** Digest of the model. */
  readonly model: string;
  /** What was measured. */
  readonly report: PlanReport;
}
