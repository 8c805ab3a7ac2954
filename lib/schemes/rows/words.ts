import type { PackWordsArgs } from '../../../binding.js';
import { activeBackend } from '../../backend/index.js';
import { provide } from '../../backend/js/backend.js';
import { packWords } from '../../backend/js/words.js';
import { bytesOf } from '../../compute/floats.js';
import { runTaskSync } from '../../compute/run.js';
import type { Made } from '../../containers/range.js';
import type { WorkRun } from '../scheme.js';
import { wordsOf } from './streams.js';

provide({ packWords });

/** Codes that become words. In the slot's memory, as these are where nobody else has some. */
interface Packing {
  readonly codes: Uint8Array;
  readonly rows: number;
  readonly cols: number;
  readonly bits: number;
  /** Which of eight rows the codes of a word are of; absent: words have those of one row. */
  readonly order?: readonly number[];
  /** Whether rows become columns of words. */
  readonly turned: boolean;
}

/**
 * Words are packed on this thread, which waits for others most of the time: it takes less of it than to wait behind chunks that are quantized.
 *
 * @param name of its memory in the slot
 */
export function packedWords(name: string, packing: Packing, { slot, signal }: WorkRun): Made {
  const { rows, cols, bits, turned, order = [] } = packing;
  const pack = (into: Pick<PackWordsArgs, 'words' | 'step'>) => {
    const args = { ...packing, ...into, order: Int32Array.from(order), threads: 1 };
    runTaskSync(activeBackend(), 'packWords', args, { signal });
  };
  const [lines, width] = order.length > 0 ? [rows / order.length, cols] : [rows, wordsOf(cols, bits)];
  return {
    async lay({ buffer, byteOffset, byteLength }, step) {
      const words = new Int32Array(buffer, byteOffset, Math.floor(byteLength / 4));
      pack({ words, step: step / 4 });
    },
    async bytes() {
      const words = slot.take(name, Int32Array, lines * width);
      pack({ words, step: turned ? lines : width });
      return bytesOf(words);
    },
  };
}
