import type { Backend, Operations, PrepareArgs, PreparedArgs, SequenceArgs, Task } from '../../../binding.js';
import { convert } from './convert.js';
import { dequantize } from './dequantize.js';
import { distance } from './distance.js';
import { extremes } from './extremes.js';
import { add, attention, denseLinear, largePages, rmsNorm, rope, swiglu } from './layers.js';
import { linear, linearTiled } from './linear.js';
import { pack, unpack } from './packing.js';
import { expand, layOut } from './panels.js';
import { encode, quantize } from './quantize.js';
import { Slices, type Units } from './slices.js';

/**
 * The operations in plain JavaScript, for machines without a native binary: the same bytes, on one thread. Knows nothing
 * of Node.
 */
export function createJsBackend(): Backend {
  const slices = new Slices();
  return {
    name: 'js',
    isa: 'js',
    dot: 'plain',
    run(operation, args) {
      const units = OPERATIONS[operation](args);
      while (!units.next().done);
    },
    start(operation, args): Task {
      return slices.add(OPERATIONS[operation](args));
    },
    prepare: (args) => new Prepared(args),
  };
}

const OPERATIONS: { readonly [K in keyof Operations]: (args: Operations[K]) => Units } = {
  quantize,
  encode,
  extremes,
  encodeBlocks: (args) => blocks().encodeBlocks(args),
  decodeBlocks: (args) => blocks().decodeBlocks(args),
  splitBlocks: (args) => blocks().splitBlocks(args),
  pack,
  unpack,
  dequantize,
  distance,
  convert,
  denseLinear,
  rmsNorm,
  rope,
  attention,
  swiglu,
  add,
  largePages,
  prepared,
  sequence,
  layOut,
  expand,
  linear,
  linearTiled,
};

type BlockName = 'encodeBlocks' | 'decodeBlocks' | 'splitBlocks';
type BlockOperations = { readonly [K in BlockName]: (args: Operations[K]) => Units };

let provided: BlockOperations | undefined;

/** Gives the operations on ggml's blocks, which come with what needs them: importing the package reads none of their code. */
export function provideBlocks(operations: BlockOperations): void {
  provided = operations;
}

function blocks(): BlockOperations {
  if (provided === undefined)
    throw new TypeError('Expected the operations on blocks to be provided before they are run.');
  return provided;
}

/** What `prepare` makes. There is nothing to read ahead here. */
class Prepared {
  constructor(readonly args: PrepareArgs) {}
}

function* prepared({ sequences, index }: PreparedArgs): Units {
  if (!(sequences instanceof Prepared)) throw new TypeError('Expected sequences to be what prepare made.');
  yield* sequence(sequences.args.sequences[index]!);
}

function* sequence({ steps }: SequenceArgs): Units {
  for (const { operation, args } of steps) yield* (OPERATIONS[operation] as (args: unknown) => Units)(args);
}
