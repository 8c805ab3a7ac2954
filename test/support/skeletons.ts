import { readFileSync } from 'node:fs';
import { brotliDecompressSync } from 'node:zlib';
import { modelFolder, randomTensor, type Source } from './checkpoints.js';

// Tiny models of some forty classes of transformers that between them have every kind of module: names, shapes and configurations, and
// what their modules are in Python (scripts/architectures/skeletons.py made them).

/** A model without its numbers. */
export interface Skeleton {
  readonly class: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly tensors: Readonly<Record<string, readonly number[]>>;
  /** Modules that are nn.Linear, Conv1D, and the one that is the output head. */
  readonly linear: readonly string[];
  readonly transposed: readonly string[];
  readonly head: string | null;
}

const file = new URL('../golden/architectures.json.br', import.meta.url);
export const SKELETONS = JSON.parse(brotliDecompressSync(readFileSync(file)).toString()) as readonly Skeleton[];
/** A folder with these tensors, of a few random numbers again and again. */
export function filled({ config, tensors }: Skeleton): string {
  const some = randomTensor([4096], 1).bytes;
  const source: Source = Object.fromEntries(
    Object.entries(tensors).map(([name, shape], index) => {
      const bytes = new Uint8Array(4 * shape.reduce((a, b) => a * b, 1));
      for (let at = 0; at < bytes.length; at += some.length) bytes.set(some.subarray(0, bytes.length - at), at);
      if (bytes.length >= 4) bytes.set(some.subarray(4 * (index % 64), 4 * (index % 64) + 4)); // tied pairs alone are alike
      return [name, { dtype: 'F32', shape, bytes }];
    }),
  );
  return modelFolder([source], { config: JSON.stringify(config, null, 2) });
}
