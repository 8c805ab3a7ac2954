import { type Field, type Hole, Message, type Payload } from './wire.js';

// Messages as bytes again, and small ones that are made anew.

const sizes = new WeakMap<Message, number>();

/** Bytes that spell a number that is no less than 0. */
export function varint(value: number | bigint): Uint8Array {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  for (; rest >= 0x80n; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80);
  return Uint8Array.from([...bytes, Number(rest)]);
}

function varintSize(value: number): number {
  let size = 1;
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) size++;
  return size;
}

/** Bytes of a payload. */
export function sizeOf(payload: Payload): number {
  if (payload instanceof Uint8Array) return payload.length;
  if (!(payload instanceof Message)) return payload.end - payload.begin;
  let size = sizes.get(payload);
  if (size === undefined) {
    size = 0;
    for (const { number, wire, payload: own } of payload.fields) {
      const bytes = sizeOf(own);
      size += varintSize(number * 8) + (wire === 2 ? varintSize(bytes) : 0) + bytes;
    }
    sizes.set(payload, size);
  }
  return size;
}

/** A message as it is written: bytes, and where those of tensors go. */
export function* piecesOf(message: Message): Generator<Uint8Array | Hole> {
  for (const { number, wire, payload } of message.fields) {
    yield varint(number * 8 + wire);
    if (wire === 2) yield varint(sizeOf(payload));
    if (payload instanceof Message) yield* piecesOf(payload);
    else yield payload;
  }
}

/** A field whose payload has its length before it. */
export function block(number: number, payload: Payload | string): Field {
  return { number, wire: 2, payload: typeof payload === 'string' ? Buffer.from(payload) : payload };
}

/** A whole number. */
export function whole(number: number, value: number): Field {
  return { number, wire: 0, payload: varint(BigInt(value)) };
}

/** Bytes of a message that is small, and has none that stay in a file. */
export function bytesOfMessage(message: Message): Uint8Array {
  return Buffer.concat([...piecesOf(message)] as Uint8Array[]);
}
