import type { DType } from '../../matrix/dtype.js';

// How a quantized weight lies in a graph: what the scheme decides, and the rewriting of nodes follows. Plain data.

/** The part of float zeros that is no whole code, as a small matrix `[blocks, outFeatures]` that sums of inputs are multiplied by. */
export type Correction =
  /** In 8 bits, with blocks of this size along the blocks of the weight. */
  { readonly kind: 'codes'; readonly block: number } | { readonly kind: 'float' };

export interface NodeForm {
  readonly bits: number;
  readonly block: number;
  /** Whether there are zero points; without them all are the middle code. */
  readonly zeros: boolean;
  readonly correction?: Correction;
  /** 4: inputs are rounded to 8 bits, block by block. 0: they are not. */
  readonly accuracy: 0 | 4;
  /** Of scales, as of what the node computes. */
  readonly dtype: DType;
}

/** What the tensors of a weight are called: as onnxruntime's own quantizer has it. */
export function partNames(key: string, bits: number) {
  return {
    codes: `${key}_Q${bits}`,
    scales: `${key}_scales`,
    zeros: `${key}_zero_points`,
    correction: `${key}_corr`,
    correctionCodes: `${key}_corr_Q8`,
    correctionScales: `${key}_corr_scales`,
    correctionZeros: `${key}_corr_zero_points`,
  } as const;
}

/** The weight that codes of this name are of, and their bits; undefined for another name. */
export function weightNamed(codes: string): { readonly key: string; readonly bits: number } | undefined {
  const found = /^(.+)_Q([248])$/s.exec(codes);
  return found ? { key: found[1]!, bits: Number(found[2]) } : undefined;
}

/** Names of the tensors that sum inputs block by block begin so. */
export const SUMS = 'hqq_sums';

/** What a tensor of codes says of the weight that it was: that it lay `[in, out]`, or `[out, in]`. */
export const LIES = { 'in-out': 'of a weight [in, out]', 'out-in': 'of a weight [out, in]' } as const;

/** What sums of inputs are scaled by: in float16 they are means, as sums of large inputs would overflow. A power of two. */
export const sumsScale = ({ block, dtype }: Pick<NodeForm, 'block' | 'dtype'>): number =>
  dtype === 'float16' ? 1 / block : 1;

export const blocksOf = (ins: number, block: number): number => Math.ceil(ins / block);
export const bytesOfBlock = (block: number, bits: number): number => (block * bits) / 8;
export const zeroBytes = (blocks: number, bits: number): number => Math.ceil((blocks * bits) / 8);
