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
      const units = OPERATIONS[operation](args);
      while (!units.next().done);
    },
    start(operation, args): Task {
      return slices.add(OPERATIONS[operation](args));
    },
    prepare: (args) => new Prepared(args),
  };
}

const OPERATIONS: { readonly [K in keyof Operations]: Run<K> } = {
  quantize,
  encode,
  extremes,
  ...later(['encodeBlocks', 'decodeBlocks', 'splitBlocks']),
  pack,
  unpack,
  dequantize,
  distance,
  convert,
  ...later(['denseLinear', 'rmsNorm', 'rope', 'attention', 'swiglu', 'geglu', 'scale', 'columns', 'add']),
  ...later(['denseLinearGradient']),
  *largePages() {}, // memory is the engine's here, pages and all
  prepared,
  sequence,
  layOut,
  expand,
  linear,
  linearTiled,
};

type Run<K extends keyof Operations> = (args: Operations[K]) => Units;

/** Operations that come with what needs them. */
type Provided =
  | 'encodeBlocks'
  | 'decodeBlocks'
  | 'splitBlocks'
  | 'denseLinear'
  | 'rmsNorm'
  | 'rope'
  | 'attention'
  | 'swiglu'
  | 'geglu'
  | 'scale'
  | 'columns'
  | 'add'
  | 'denseLinearGradient';
type ProvidedOperations = { readonly [K in Provided]: Run<K> };

let provided: Partial<ProvidedOperations> = {};

/** Gives operations that come with what needs them (ggml's blocks, layers of models): importing the package reads none of their code. */
export function provide(operations: Partial<ProvidedOperations>): void {
  provided = { ...provided, ...operations };
}

function later<K extends Provided>(names: readonly K[]): Pick<ProvidedOperations, K> {
  const runOf = (name: K) => (args: never) => {
    const run = provided[name] as ((args: never) => Units) | undefined;
    if (run === undefined) throw new TypeError(`Expected operation ${name} to be provided before it is run.`);
    return run(args);
  };
  return Object.fromEntries(names.map((name) => [name, runOf(name)])) as unknown as Pick<ProvidedOperations, K>;
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
