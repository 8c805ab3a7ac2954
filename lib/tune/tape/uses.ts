import type { Operations, Step } from '../../../binding.js';
import { HqqError } from '../../messages/errors.js';
import type { Floats } from './spans.js';

/** Which arrays an operation takes and gives. */
export interface Uses {
  readonly reads: readonly Floats[];
  readonly writes: Floats;
}

/** Operations that have a gradient. */
export type Differentiable =
  | 'rmsNorm'
  | 'layerNorm'
  | 'gelu'
  | 'geluTanh'
  | 'relu'
  | 'denseLinear'
  | 'columns'
  | 'rope'
  | 'attention'
  | 'swiglu'
  | 'geglu'
  | 'scale'
  | 'add';

/** One of these, and its arguments. */
export type DifferentiableStep = Extract<Step, { readonly operation: Differentiable }>;

const gated = ({ gate, up, out }: Operations['swiglu']): Uses => ({ reads: [gate, up], writes: out });

const inPlace = ({ x }: Operations['gelu']): Uses => ({ reads: [x], writes: x });

const USES: { readonly [K in Differentiable]: (args: Operations[K]) => Uses } = {
  rmsNorm: ({ x, out }) => ({ reads: [x], writes: out }),
  layerNorm: ({ x, out }) => ({ reads: [x], writes: out }),
  gelu: inPlace,
  geluTanh: inPlace,
  relu: inPlace,
  denseLinear: ({ x, out }) => ({ reads: [x], writes: out }),
  columns: ({ x, out }) => ({ reads: [x], writes: out }),
  rope: ({ x }) => ({ reads: [x], writes: x }),
  attention: ({ q, k, v, out }) => ({ reads: [q, k, v], writes: out }), // what its cache holds nobody else reads
  swiglu: gated,
  geglu: gated,
  scale: ({ x }) => ({ reads: [x], writes: x }),
  add: ({ x, to }) => ({ reads: [x, to], writes: to }),
};

export function usesOf({ operation, args }: DifferentiableStep): Uses {
  return USES[operation](args as never);
}

/** @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for a step that has no gradient here */
export function checkDifferentiable(step: Step): DifferentiableStep {
  if (Object.hasOwn(USES, step.operation)) return step as DifferentiableStep;
  const what = step.operation === 'linear' ? 'a linear layer on codes' : `the operation ${step.operation}`;
  throw new HqqError(
    'ERR_CHECKPOINT_CONTENT',
    `Expected what has a gradient, got ${what}. Tune the model of floats that it was made of.`,
  );
}
