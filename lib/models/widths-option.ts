import { NBITS, type NBits } from '../matrix/config.js';
import type { Option } from '../matrix/option.js';

/** The option of a model whose output holds several forms of it. */
export interface WidthsOption {
  /**
   * Of a transformers.js folder: the bits of each form of its models that is made, in place of `nbits`, `[4, 8]` for
   * `onnx/model_q4.onnx` and `onnx/model_quantized.onnx`. The first is what transformers.js takes where nobody says. Names of tensors begin with
   * that of the form (`model_q4/`); patterns match them with and without it.
   *
   * @default undefined: one form, of `nbits`
   * @throws {HqqError} `ERR_INVALID_OPTION` for another model, or with `nbits` or `plan`.
   */
  readonly widths?: readonly NBits[] | undefined;
}

function isWidths(value: unknown): boolean {
  if (!Array.isArray(value) || value.length === 0 || new Set(value).size < value.length) return false;
  return value.every((width) => (NBITS as readonly unknown[]).includes(width));
}

/** In the shape of `OPTIONS` of one matrix. */
export const WIDTHS_OPTION: Option<WidthsOption['widths']> = {
  default: undefined,
  expected: `a list of different ones of ${NBITS.join(', ')}`,
  accepts: (value) => value === undefined || isWidths(value),
  help: 'bits of each form of the models of a transformers.js folder',
};
