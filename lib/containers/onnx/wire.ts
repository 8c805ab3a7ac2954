import { formatError } from '../../messages/text.js';

// The wire format of protobuf, as far as ONNX needs it: messages as lists of fields, whose payloads stay the bytes that they are.
// What is not changed is written again byte for byte, fields that nobody here knows included.

/** How a payload lies: a varint, eight bytes, bytes with their length before them, four bytes. */
export type WireType = 0 | 1 | 2 | 5;

/** Bytes of a file that are not read: the numbers of a tensor. */
export interface Hole {
  readonly begin: number;
  readonly end: number;
  /** Name of the entry whose bytes they are, once it has one. */
  entry?: string;
}

/** What a field holds: its bytes (of a varint those that spell it), a message that is read, or what stays in the file. */
export type Payload = Uint8Array | Message | Hole;

export interface Field {
  readonly number: number;
  readonly wire: WireType;
  readonly payload: Payload;
}

/** A message: its fields in their order. Never changed once it is made. */
export class Message {
  readonly fields: readonly Field[];
  #size: number | undefined;

  constructor(fields: readonly Field[]) {
    this.fields = fields;
  }

  /** Bytes that it is written in. */
  get size(): number {
    if (this.#size !== undefined) return this.#size;
    let size = 0;
    for (const { number, wire, payload } of this.fields) {
      const bytes = sizeOf(payload);
      size += varintSize(number * 8) + (wire === 2 ? varintSize(bytes) : 0) + bytes;
    }
    this.#size = size;
    return size;
  }

  /** The payloads of every field of this number. */
  all(number: number): readonly Payload[] {
    return this.fields.filter((field) => field.number === number).map(({ payload }) => payload);
  }

  /** The bytes of the last field of this number, as protobuf has it; undefined where there is none. */
  bytes(number: number): Uint8Array | undefined {
    const { fields } = this;
    for (let i = fields.length; i-- > 0; ) {
      const { number: own, payload } = fields[i]!;
      if (own === number) return payload instanceof Uint8Array ? payload : undefined;
    }
    return undefined;
  }
}

/** Bytes of a payload. */
export function sizeOf(payload: Payload): number {
  if (payload instanceof Uint8Array) return payload.length;
  return payload instanceof Message ? payload.size : payload.end - payload.begin;
}

function varintSize(value: number): number {
  let size = 1;
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) size++;
  return size;
}

/** Where a field of a message lies. */
export interface Span {
  readonly number: number;
  readonly wire: WireType;
  /** Of the payload. */
  readonly begin: number;
  readonly end: number;
}

/** Bytes that are read from a file at once. */
const WINDOW_BYTES = 64 * 1024;

/** Bytes that are copied sooner one by one than a view of them is made. */
export const FEW_BYTES = 32;

/** Largest field number that protobuf has. */
const MAX_FIELD = 2 ** 29 - 1;

/** Reads fields of bytes that lie in memory, or, a window at a time, in a file. Trusts no length. */
export class WireReader {
  readonly size: number;
  readonly #path: string;
  readonly #refill: ((position: number, into: Uint8Array) => void) | undefined;
  #window: Uint8Array;
  #base = 0;
  #next = 0;

  /**
   * @param path For messages.
   * @param source The bytes; or how many there are, and what fills a part of memory with those from a position on.
   */
  constructor(
    path: string,
    source: Uint8Array | { readonly size: number; readonly read: (position: number, into: Uint8Array) => void },
  ) {
    this.#path = path;
    if (source instanceof Uint8Array) {
      this.size = source.length;
      this.#window = source;
      return;
    }
    this.size = source.size;
    this.#refill = source.read;
    this.#window = new Uint8Array(0);
  }

  /** The fields of the message that lies from `begin` to `end`. */
  *fields(begin = 0, end = this.size): Generator<Span> {
    for (let at = begin; at < end; ) {
      const tag = this.varint(at, end);
      const [number, wire] = [Math.floor(tag / 8), tag % 8];
      if (number < 1 || number > MAX_FIELD) this.fail(at, `expected the number of a field, got ${number}`);
      at = this.#next;
      if (wire === 0) {
        this.varint(at, end);
        yield { number, wire, begin: at, end: (at = this.#next) };
        continue;
      }
      if (wire !== 1 && wire !== 2 && wire !== 5)
        this.fail(at, `expected a wire type of protobuf (0, 1, 2, 5), got ${wire}`);
      const length = wire === 2 ? this.varint(at, end) : wire === 1 ? 8 : 4;
      if (wire === 2) at = this.#next;
      if (length > end - at)
        this.fail(at, `expected a field of at most ${end - at} bytes, which its message has left, got ${length}`);
      yield { number, wire: wire as WireType, begin: at, end: (at += length) };
    }
  }

  /** A number that is spelt at `at`. Those of 2^53 and more, negative ones among them, are Infinity. */
  varint(at: number, end: number): number {
    let [value, scale] = [0, 1];
    for (let i = at; i < end && i < at + 10; i++, scale *= 128) {
      const byte = this.#at(i);
      value += (byte & 0x7f) * scale;
      if (byte >= 0x80) continue;
      this.#next = i + 1;
      return value <= Number.MAX_SAFE_INTEGER ? value : Infinity;
    }
    return this.fail(at, end < at + 10 ? 'the message ends within a number' : 'a number has more than 10 bytes');
  }

  /** Fills `into` with the bytes from `at` on. */
  copy(at: number, into: Uint8Array): void {
    const from = at - this.#base;
    const { length } = into;
    if (from < 0 || from + length > this.#window.length) this.#refill?.(at, into);
    else if (length > FEW_BYTES) into.set(this.#window.subarray(from, from + length));
    else for (let i = 0; i < length; i++) into[i] = this.#window[from + i]!;
  }

  fail(at: number, message: string): never {
    throw formatError(this.#path, `${message}, at byte ${at}. The file is damaged, or no ONNX model.`);
  }

  #at(i: number): number {
    if (i < this.#base || i >= this.#base + this.#window.length) {
      if (this.#window.length < WINDOW_BYTES) this.#window = new Uint8Array(Math.min(WINDOW_BYTES, this.size));
      this.#base = Math.min(i, this.size - this.#window.length);
      this.#refill!(this.#base, this.#window);
    }
    return this.#window[i - this.#base]!;
  }
}

/** The fields of a message that lies in memory. */
export function messageOf(bytes: Uint8Array, path: string): Message {
  const fields: Field[] = [];
  const { buffer, byteOffset } = bytes;
  for (const { number, wire, begin, end } of new WireReader(path, bytes).fields())
    fields.push({ number, wire, payload: new Uint8Array(buffer, byteOffset + begin, end - begin) });
  return new Message(fields);
}

/** A number as 64 bits with a sign, of the bytes that spell it. */
export function integerOf(bytes: Uint8Array): bigint {
  let value = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) value = (value << 7n) | BigInt(bytes[i]! & 0x7f);
  return BigInt.asIntN(64, value);
}

/** The same as a number, which of 2^53 and more is the nearest that there is; 0 where nothing spells one. */
export function numberOf(bytes: Uint8Array | undefined): number {
  if (bytes === undefined) return 0;
  if (bytes.length > 7) return Number(integerOf(bytes));
  let value = 0;
  for (let i = bytes.length - 1; i >= 0; i--) value = value * 128 + (bytes[i]! & 0x7f);
  return value;
}

/** Numbers of a repeated field, packed or not. At most `most` of them. */
export function integersOf(message: Message, number: number, most: number, path: string): readonly number[] {
  const values: number[] = [];
  for (const { number: own, wire, payload } of message.fields) {
    if (own !== number || !(payload instanceof Uint8Array)) continue;
    for (let at = 0; at < payload.length; ) {
      let end = at;
      while (end < payload.length && payload[end]! >= 0x80) end++;
      if (end === payload.length || end - at >= 10 || values.length === most)
        throw formatError(path, `expected at most ${most} whole numbers in field ${number}. The file is damaged.`);
      values.push(numberOf(payload.subarray(at, end + 1)));
      at = end + 1;
      if (wire !== 2) break;
    }
  }
  return values;
}

const decoder = new TextDecoder();

/** Text of a field; '' where there is none. */
export function textOf(payload: Payload | undefined): string {
  return payload instanceof Uint8Array ? decoder.decode(payload) : '';
}
