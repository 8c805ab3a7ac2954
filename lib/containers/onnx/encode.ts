import { FEW_BYTES, type Field, type Hole, Message, type Payload, sizeOf } from './wire.js';

// Messages as bytes again, and small ones that are made anew.

/** Bytes that spell a whole number that is no less than 0. */
function varint(value: number): Uint8Array {
  if (value < 128) return Uint8Array.of(value);
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  return Uint8Array.from([...bytes, rest]);
}

/** Bytes that are gathered before they are given on. */
const CHUNK_BYTES = 64 * 1024;

/** Most bytes of a key of a field and its length. */
const MAX_KEY_BYTES = 20;

/** Where a message is being written. */
interface Place {
  readonly fields: readonly Field[];
  next: number;
}

/** A message as it is written: bytes, and where those of tensors go. Fields may be many and small: what lies together comes together. */
export function* piecesOf(message: Message): Generator<Uint8Array | Hole> {
  let buffer = Buffer.allocUnsafe(CHUNK_BYTES);
  let [begin, used] = [0, 0];
  const spell = (value: number) => {
    let rest = value;
    for (; rest >= 128; rest = Math.floor(rest / 128)) buffer[used++] = (rest % 128) | 128;
    buffer[used++] = rest;
  };
  const stack: Place[] = [{ fields: message.fields, next: 0 }];
  for (let at = stack.at(-1); at !== undefined; at = stack.at(-1)) {
    const field = at.fields[at.next++];
    if (field === undefined) {
      stack.pop();
      continue;
    }
    const { number, wire, payload } = field;
    const bytes = payload instanceof Uint8Array ? payload.length : 0;
    if (used + MAX_KEY_BYTES + bytes > buffer.length) {
      if (used > begin) yield buffer.subarray(begin, used);
      buffer = Buffer.allocUnsafe(Math.max(CHUNK_BYTES, MAX_KEY_BYTES + bytes));
      begin = used = 0;
    }
    spell(number * 8 + wire);
    if (wire === 2) spell(sizeOf(payload));
    if (payload instanceof Uint8Array) {
      if (bytes > FEW_BYTES) buffer.set(payload, used);
      else for (let i = 0; i < bytes; i++) buffer[used + i] = payload[i]!;
      used += bytes;
    } else if (payload instanceof Message) stack.push({ fields: payload.fields, next: 0 });
    else {
      yield buffer.subarray(begin, used);
      yield payload;
      begin = used;
    }
  }
  if (used > begin) yield buffer.subarray(begin, used);
}

/** A field whose payload has its length before it. */
export function block(number: number, payload: Payload | string): Field {
  return { number, wire: 2, payload: typeof payload === 'string' ? Buffer.from(payload) : payload };
}

/** A whole number. */
export function whole(number: number, value: number): Field {
  return { number, wire: 0, payload: varint(value) };
}

/** Bytes of a message that has none that stay in a file: at once, without a buffer that is larger. */
export function bytesOfMessage(message: Message): Uint8Array {
  const bytes = Buffer.allocUnsafe(message.size);
  fill(message, bytes, 0);
  return bytes;
}

/** Writes a message into bytes, and gives where it ends. */
function fill({ fields }: Message, bytes: Buffer, begin: number): number {
  let at = begin;
  const spell = (value: number) => {
    let rest = value;
    for (; rest >= 128; rest = Math.floor(rest / 128)) bytes[at++] = (rest % 128) | 128;
    bytes[at++] = rest;
  };
  for (const { number, wire, payload } of fields) {
    spell(number * 8 + wire);
    if (wire === 2) spell(sizeOf(payload));
    if (payload instanceof Message) at = fill(payload, bytes, at);
    else if (payload instanceof Uint8Array) {
      bytes.set(payload, at);
      at += payload.length;
    } else throw new RangeError('Expected a message in memory, got one that has bytes in a file.');
  }
  return at;
}
