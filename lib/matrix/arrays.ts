import { HqqError } from '../messages/errors.js';

// Arrays of results. `Float32Array<ArrayBuffer>` is an error to TypeScript before 5.7, which knows no such parameter: these are that
// where it is known, and `Float32Array` where it is not.

/** A `Float32Array` on an `ArrayBuffer`, which can be transferred: `Float32Array<ArrayBuffer>` from TypeScript 5.7 on. */
export type OwnedFloat32Array = ReturnType<Float32ArrayConstructor['of']>;
/** A `Float64Array` on an `ArrayBuffer`. */
export type OwnedFloat64Array = ReturnType<Float64ArrayConstructor['of']>;
/** A `Uint16Array` on an `ArrayBuffer`. */
export type OwnedUint16Array = ReturnType<Uint16ArrayConstructor['of']>;
/** A `Uint8Array` on an `ArrayBuffer`. */
export type OwnedUint8Array = ReturnType<Uint8ArrayConstructor['of']>;
/** An `Int32Array` on an `ArrayBuffer`. */
export type OwnedInt32Array = ReturnType<Int32ArrayConstructor['of']>;

// What a value is, asked of the engine: no property that an object may claim for itself, and true across realms, where
// `instanceof` is not.

const getter = (prototype: object, name: string | symbol) => Object.getOwnPropertyDescriptor(prototype, name)!.get!;

const className = getter(Object.getPrototypeOf(Uint8Array.prototype) as object, Symbol.toStringTag);

/** The class of a typed array, `'Float32Array'` and so on; undefined for anything else. */
export function typedArrayClass(value: unknown): string | undefined {
  return className.call(value) as string | undefined;
}

/** How numbers in a list, or in floats of another size, become a `Float32Array`; nothing for what may be bits or bytes. */
export function conversionHint(value: unknown, name: string): string {
  const isList = Array.isArray(value);
  if (!isList && !['Float64Array', 'Float16Array'].includes(typedArrayClass(value) ?? '')) return '';
  const flat = isList && Array.isArray(value[0]) ? '.flat()' : '';
  return ` Convert it: Float32Array.from(${name}${flat}).`;
}

const ownLength = getter(ArrayBuffer.prototype, 'byteLength');
// Browsers hide the class from pages that are not isolated from others.
const sharedLength =
  typeof SharedArrayBuffer === 'function' ? getter(SharedArrayBuffer.prototype, 'byteLength') : undefined;

const answers = (ask: (() => unknown) | undefined, buffer: ArrayBufferLike) => {
  try {
    return ask?.call(buffer) !== undefined;
  } catch {
    return false;
  }
};

/** Whether a buffer's memory is shared between threads: then it can neither shrink nor be transferred. */
function isShared(buffer: ArrayBufferLike): boolean {
  // The common case comes first: the other getter throws at it, which takes longer than multiplying a small layer.
  return !answers(ownLength, buffer) && answers(sharedLength, buffer);
}

/** Whether it is an ArrayBuffer or a SharedArrayBuffer, of whatever realm. */
export function isBuffer(value: unknown): value is ArrayBufferLike {
  return typeof value === 'object' && (answers(ownLength, value as never) || answers(sharedLength, value as never));
}

/** Any typed array that a backend may be given. */
export type InputArray = Float32Array | Float64Array | Uint8Array | Uint16Array | Int32Array;

/**
 * Refuses arrays whose memory may go away while native code reads it, and those that have lost theirs.
 *
 * Arrays on a SharedArrayBuffer are welcome; writing to them during a call makes its result unpredictable, no more.
 *
 * @throws {HqqError} `ERR_INVALID_ARGUMENT`
 */
export function checkInput(array: InputArray, name: string): void {
  checkBuffer(array.buffer, name);
}

/** `checkInput` of the memory itself. */
export function checkBuffer(buffer: ArrayBufferLike, name: string): void {
  if (isShared(buffer)) return; // can neither shrink nor be transferred
  if ((buffer as { resizable?: boolean }).resizable) {
    throw new HqqError(
      'ERR_INVALID_ARGUMENT',
      `Expected ${name} to have a buffer of fixed length, got one that is resizable. Pass a copy: ${name}.slice().`,
    );
  }
  if (isDetached(buffer)) {
    throw new HqqError(
      'ERR_INVALID_ARGUMENT',
      `Expected ${name} to have its memory, got an array whose buffer was transferred (to a worker, or by structuredClone).`,
    );
  }
}

function isDetached(buffer: ArrayBufferLike): boolean {
  if (buffer.byteLength > 0) return false;
  const { detached } = buffer as { detached?: boolean };
  if (detached !== undefined) return detached;
  try {
    new Uint8Array(buffer); // Node 20 has no `detached`; a view on a detached buffer cannot be made
    return false;
  } catch {
    return true;
  }
}
