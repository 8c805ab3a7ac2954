import type { Steps } from '../../files/event-loop.js';
import { formatError } from '../../messages/text.js';
import { SPELT } from './spelt.js';
import { type Field, Message, type Payload, type Span, type WireReader } from './wire.js';

// An ONNX file without its weights: the messages that are worked on are read, in memory that is bounded, and the numbers of tensors
// stay where they are.

/** Messages that are read as such; all else stays bytes. */
type Kind = 'model' | 'graph' | 'node' | 'attribute' | 'tensor';

/** Fields of each that are messages of these kinds. */
const NESTED: Readonly<Record<Kind, Readonly<Record<number, Kind>>>> = {
  model: { 7: 'graph' },
  graph: { 1: 'node', 5: 'tensor' },
  node: { 5: 'attribute' },
  attribute: { 5: 'tensor', 6: 'graph', 10: 'tensor', 11: 'graph' },
  tensor: {},
};

/** Fields of a tensor that hold numbers as they lie in memory: float_data, packed, and raw_data. */
const NUMBERS: ReadonlySet<number> = new Set([4, 9]);

/** Deepest graph within a graph. Merged decoders have two. */
const MAX_DEPTH = 16;

/** Most bytes of all that is no numbers of tensors. The largest graphs have some ten million. */
export const MAX_GRAPH_BYTES = 128 * 1024 * 1024;

/** Most fields of the messages that are read: a hostile file may have one in two bytes. The largest graphs have some hundred thousand. */
const MAX_FIELDS = 500_000;

/** Bytes of memory that many small payloads share. */
const SLAB_BYTES = 256 * 1024;

class Scanner {
  readonly #reader: WireReader;
  #fields = 0;
  #bytes = 0;
  #slab = new ArrayBuffer(0);
  #used = 0;

  constructor(reader: WireReader) {
    this.#reader = reader;
  }

  *message(kind: Kind, begin: number, end: number, depth: number): Steps<Message> {
    if (depth > MAX_DEPTH) this.#reader.fail(begin, `graphs lie within graphs, more than ${MAX_DEPTH} deep`);
    const fields: Field[] = [];
    let spans = 0;
    for (const span of kind === 'tensor' ? inRuns(this.#reader.fields(begin, end)) : this.#reader.fields(begin, end)) {
      if (++spans % 4096 === 0) yield;
      if (span === undefined) continue;
      if (++this.#fields > MAX_FIELDS) this.#reader.fail(span.begin, `the graph has more than ${MAX_FIELDS} fields`);
      const { number, wire } = span;
      fields.push({ number, wire, payload: yield* this.#payload(kind, span, depth) });
      if (this.#fields % 64 === 0) yield;
    }
    return new Message(fields);
  }

  *#payload(kind: Kind, { number, wire, begin, end }: Span, depth: number): Steps<Payload> {
    if (wire === 2) {
      if (kind === 'tensor' && NUMBERS.has(number)) return { begin, end };
      const inner = NESTED[kind][number];
      if (inner !== undefined && this.#isRead(inner, begin, end))
        return yield* this.message(inner, begin, end, depth + (inner === 'graph' ? 1 : 0));
    }
    return this.#copy(begin, end);
  }

  /** Whether a message has something that is worked on: nodes and attributes with tensors or graphs in them; others stay bytes. */
  #isRead(kind: Kind, begin: number, end: number): boolean {
    if (kind !== 'node' && kind !== 'attribute') return true;
    for (const { number, wire, begin: from, end: to } of this.#reader.fields(begin, end)) {
      const inner = wire === 2 ? NESTED[kind][number] : undefined;
      if (inner !== undefined && (kind === 'attribute' || this.#isRead(inner, from, to))) return true;
    }
    return false;
  }

  #copy(begin: number, end: number): Uint8Array {
    const length = end - begin;
    this.#bytes += length;
    if (this.#bytes > MAX_GRAPH_BYTES) {
      const most = `the graph has more than ${MAX_GRAPH_BYTES} bytes beside the numbers of its tensors, which are read at most`;
      this.#reader.fail(begin, most);
    }
    if (length > SLAB_BYTES / 4) {
      const own = new Uint8Array(length);
      this.#reader.copy(begin, own);
      return own;
    }
    if (this.#used + length > this.#slab.byteLength) [this.#slab, this.#used] = [new ArrayBuffer(SLAB_BYTES), 0];
    const bytes = new Uint8Array(this.#slab, this.#used, length);
    this.#used += length;
    this.#reader.copy(begin, bytes);
    return bytes;
  }
}

/**
 * Numbers that are spelt one by one, as one span from the first number to the last, with the tags between them, which are one byte each:
 * a matrix has millions. Gives undefined in the place of those that are put together.
 */
function* inRuns(spans: Iterable<Span>): Generator<Span | undefined> {
  let run: Span | undefined;
  for (const span of spans) {
    const { number, wire, begin, end } = span;
    if (run && run.number === number && run.wire === wire && begin === run.end + 1) {
      run = { ...run, end };
      yield undefined;
      continue;
    }
    if (run) yield run;
    run = SPELT.has(number) && wire !== 2 ? span : undefined;
    if (run === undefined) yield span;
  }
  if (run) yield run;
}

/**
 * The messages of a file.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_FORMAT`
 */
export function* scanSteps(reader: WireReader, path: string): Steps<Message> {
  const model = yield* new Scanner(reader).message('model', 0, reader.size, 0);
  const graphs = model.all(7);
  if (graphs.length !== 1 || !(graphs[0] instanceof Message))
    throw formatError(path, `expected an ONNX model, with one graph, got ${graphs.length}.`);
  return model;
}

/** Fields of a model, and how their payloads lie. */
const MODEL_FIELDS: Readonly<Record<number, 0 | 2>> = {
  1: 0,
  2: 2,
  3: 2,
  4: 2,
  5: 0,
  6: 2,
  7: 2,
  8: 2,
  14: 2,
  20: 2,
  25: 2,
  26: 2,
};

/** Highest version of the format that a file may say, with room for what is to come. */
const MAX_IR_VERSION = 99;

/** Whether a file of `size` bytes that begins with `prefix` is an ONNX model: its version, then fields that models have. */
export function beginsModel(prefix: Uint8Array, size: number): boolean {
  if (prefix.length < 4 || prefix[0] !== 0x08 || prefix[1]! < 1 || prefix[1]! > MAX_IR_VERSION) return false;
  for (let at = 2, count = 0; at < prefix.length; count++) {
    const tag = prefix[at]!;
    const next = prefix[at + 1] ?? 0;
    const number = tag >= 0x80 ? (tag & 0x7f) / 8 + next * 16 : tag / 8;
    if (MODEL_FIELDS[Math.floor(number)] !== (tag & 7)) return false;
    at += tag >= 0x80 ? 2 : 1;
    let [value, scale] = [0, 1];
    let whole = false;
    for (const last = at + 10; at < prefix.length && at < last && !whole; at++, scale *= 128) {
      value += (prefix[at]! & 0x7f) * scale;
      whole = prefix[at]! < 0x80;
    }
    if (!whole) return at >= prefix.length && count > 0;
    if ((tag & 7) === 2) at += value;
    if (at > size) return count > 0; // cut off, perhaps: whoever opens it says where
  }
  return true;
}
