import { provide } from '../../backend/js/backend.js';
import { turn } from '../../backend/js/turn.js';
import { bitsOf } from '../../compute/floats.js';
import { type Machine, runTaskSync } from '../../compute/run.js';
import type { LinearSite, TensorSource } from '../../containers/container.js';
import { pieces, type Range, readRanges } from '../../containers/ranges.js';
import { rounding } from '../../containers/rounding.js';
import { Scratch } from '../../containers/scratch.js';
import { numbersOf } from '../../containers/stored-types.js';
import { yieldIfDue } from '../../files/event-loop.js';
import { DTYPES } from '../../matrix/dtype.js';
import type { Chunk } from '../../schemes/scheme.js';
import { Deferred } from '../stream/deferred.js';

// Weights that lie `[in, out]`: rows of the matrix are columns there, and to read some of them is to read a little of every row. So
// many are read at once, as they lie, and chunks are turned out of them.

provide({ turn });

/** Most weights of a window: all of a matrix of 4096 x 4096. Two are in memory at once, one being read. */
const WINDOW_WEIGHTS = 16 * 1024 * 1024;

/** Weights that are turned before others have their turn: less than a millisecond's work. */
const TURN_WEIGHTS = 1024 * 1024;

/** Bytes that are read at once. */
const READ_BYTES = 4 * 1024 * 1024;

/** Some rows of such a weight matrix, whose chunks all need no others. */
export class Window {
  readonly #site: LinearSite;
  readonly #rows: Range;
  readonly #room: Room;
  /** Chunks that are not done. */
  #left: number;
  #bytes = new Uint8Array();
  readonly #read = new Deferred();
  readonly #done = new Deferred();
  readonly #before: Promise<void> | undefined;

  constructor(site: LinearSite, rows: Range, chunks: number, room: Room) {
    this.#site = site;
    this.#rows = rows;
    this.#left = chunks;
    this.#room = room;
    this.#before = room.done;
    room.done = this.#done.promise;
  }

  /** Reads it, when the window that was in its memory before is done with. */
  async read(source: TensorSource, slot: Scratch, signal: AbortSignal): Promise<void> {
    try {
      await this.#before;
      const { weight, shape } = this.#site;
      const [outs, ins] = shape;
      const { at, count } = this.#rows;
      const { bytes: size } = DTYPES[numbersOf(weight.type)!];
      this.#bytes = this.#room.scratch.take('window', Uint8Array, ins * count * size);
      const ranges = count === outs ? [...pieces(ins * outs, READ_BYTES / size)] : { at, count, rows: ins, step: outs };
      await readRanges(rounding(source), weight, ranges, size, this.#bytes, slot, signal);
      this.#read.resolve();
    } catch (error) {
      this.#read.reject(error); // nobody waits for what will not be
      throw error;
    }
  }

  /** Fills `into` with rows of the matrix, one range after the other. */
  async fill(ranges: readonly Range[], into: Uint8Array, { backend, threads, signal }: Machine): Promise<void> {
    await this.#read.promise;
    const dtype = numbersOf(this.#site.weight.type)!;
    const [ins, stride] = [this.#site.shape[1], this.#rows.count];
    const [from, all] = [bitsOf(this.#bytes, dtype), bitsOf(into, dtype)];
    let done = 0;
    for (const { at, count } of ranges) {
      // On this thread, beside what others compute, and some of the rows at a time: the event loop has its turn meanwhile.
      for (const rows of pieces(count / ins, Math.max(1, Math.floor(TURN_WEIGHTS / ins)))) {
        const place = { rows: ins, stride, first: at / ins - this.#rows.at + rows.at, cols: rows.count };
        const to = all.subarray(done, (done += rows.count * ins));
        runTaskSync(backend, 'turn', { from, dtype: DTYPES[dtype].id, ...place, to, threads }, { signal });
        await yieldIfDue();
      }
    }
  }

  /** One of its chunks is done, well or not. */
  end(): void {
    if (--this.#left === 0) this.#done.resolve();
  }
}

/** Memory of windows that come one after the other. */
export interface Room {
  readonly scratch: Scratch;
  /** When the last one is done with. */
  done?: Promise<void>;
}

/** Room for windows that are read while those before are computed. */
export class Rooms {
  readonly #rooms: readonly Room[] = [{ scratch: new Scratch() }, { scratch: new Scratch() }];
  #next = 0;

  next(): Room {
    return this.#rooms[this.#next++ % this.#rooms.length]!;
  }
}

/** Chunks that share a window, if they have one. */
interface Share<C> {
  readonly window: Window | undefined;
  readonly chunks: readonly C[];
}

/** Chunks of a layer by the windows that they are in: those of matrices that lie `[in, out]`, if each is of whole rows that are not far apart. */
export function* inWindows<C extends Pick<Chunk, 'weights'>>(
  site: LinearSite,
  chunks: Iterable<C>,
  rooms: Rooms,
): Generator<Share<C>> {
  const ins = site.shape[1];
  let share: C[] = [];
  let rows: Range | undefined;
  const whole = (): Share<C> => ({
    window: rows && new Window(site, rows, share.length, rooms.next()),
    chunks: share,
  });
  for (const chunk of chunks) {
    const own = site.stored === 'in-out' ? rowsOf(chunk.weights, ins) : undefined;
    const both = rows && own && around(rows, own);
    if (both && both.count * ins <= WINDOW_WEIGHTS) {
      share.push(chunk);
      rows = both;
      continue;
    }
    if (share.length > 0) yield whole();
    share = [chunk];
    rows = own && own.count * ins <= WINDOW_WEIGHTS ? own : undefined;
  }
  if (share.length > 0) yield whole();
}

/** All rows from the first to the last of ranges; undefined where these begin or end within a row. */
function rowsOf(ranges: readonly Range[], ins: number): Range | undefined {
  if (ranges.some(({ at, count }) => at % ins !== 0 || count % ins !== 0)) return undefined;
  return ranges.map(({ at, count }) => ({ at: at / ins, count: count / ins })).reduce(around);
}

function around(a: Range, b: Range): Range {
  const at = Math.min(a.at, b.at);
  return { at, count: Math.max(a.at + a.count, b.at + b.count) - at };
}
