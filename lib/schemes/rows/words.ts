import { activeBackend } from '../../backend/index.js';
import { provide } from '../../backend/js/backend.js';
import { packWords } from '../../backend/js/words.js';
import { bytesOf } from '../../compute/floats.js';
import { runTaskSync } from '../../compute/run.js';
import type { Made } from '../../containers/range.js';
import { pieces } from '../../containers/ranges.js';
import { yieldIfDue } from '../../files/event-loop.js';
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

/** Codes that become words before others have their turn: a millisecond's work. */
const TURN_CODES = 512 * 1024;

/** Lines whose words fill a cache line where they are columns: packed apart they would take twice the time. */
const TILE = 16;

/**
 * Words are packed on this thread, which waits for others most of the time: it takes less of it than to wait behind chunks that are quantized.
 *
 * @param name of its memory in the slot
 */
export function packedWords(name: string, packing: Packing, { slot, signal }: WorkRun): Made {
  const { codes, rows, cols, bits, turned, order = [] } = packing;
  const height = order.length || 1; // rows of a line
  const [lines, width] = [rows / height, order.length > 0 ? cols : wordsOf(cols, bits)];
  const pack = async (words: Int32Array, step: number) => {
    const most = Math.max(1, Math.floor(TURN_CODES / (height * cols)));
    for (const { at, count } of pieces(lines, most > TILE ? most - (most % TILE) : most)) {
      const args = {
        ...{ rows: count * height, cols, bits, order: Int32Array.from(order), turned, step, threads: 1 },
        codes: codes.subarray(at * height * cols, (at + count) * height * cols),
        words: words.subarray(turned ? at : at * step),
      };
      runTaskSync(activeBackend(), 'packWords', args, { signal });
      await yieldIfDue();
    }
  };
  return {
    lay: ({ buffer, byteOffset, byteLength }, step) =>
      pack(new Int32Array(buffer, byteOffset, Math.floor(byteLength / 4)), step / 4),
    async bytes() {
      const words = slot.take(name, Int32Array, lines * width);
      await pack(words, turned ? lines : width);
      return bytesOf(words);
    },
  };
}
