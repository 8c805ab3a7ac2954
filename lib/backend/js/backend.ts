import type { Backend, Operations, PrepareArgs, PreparedArgs, SequenceArgs, Task } from '../../../binding.js';
import { convert } from './convert.js';
import { dequantize } from './dequantize.js';
import { distance } from './distance.js';
import { extremes } from './extremes.js';
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
      const units = unitsOf(operation, args);
      while (!units.next().done);
    },
    start(operation, args): Task {
      return slices.add(unitsOf(operation, args));
    },
    prepare: (args) => new Prepared(args),
  };
}

/** The operations by name; those that come with what needs them are added to it. */
const operations: { [K in keyof Operations]?: Run<K> } = {
  quantize,
  encode,
  extremes,
  pack,
  unpack,
  dequantize,
  distance,
  convert,
  // Memory is the engine's here, pages and all.
  *largePages() {},
  *trim() {},
  prepared,
  sequence,
  layOut,
  expand,
  linear,
  linearTiled,
};

type Run<K extends keyof Operations> = (args: Operations[K]) => Units;

/**
 * Gives operations that come with what needs them (ggml's blocks, layers of models): importing the package reads none of their code.
 * Returns those that there were.
 */
export function provide(more: typeof operations): typeof operations {
  const before = { ...operations };
  Object.assign(operations, more);
  return before;
}

function unitsOf<K extends keyof Operations>(operation: K, args: Operations[K]): Units {
  const run = operations[operation];
  if (run === undefined) throw new TypeError(`Expected ${operation} to be provided.`);
  return run(args);
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
  for (const { operation, args } of steps) yield* unitsOf(operation, args as never);
}
