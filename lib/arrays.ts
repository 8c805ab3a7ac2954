// What a value is, asked of the engine: no property that an object may claim for itself, and true across realms, where
// `instanceof` is not.

const getter = (prototype: object, name: string | symbol) => Object.getOwnPropertyDescriptor(prototype, name)!.get!;

const className = getter(Object.getPrototypeOf(Uint8Array.prototype) as object, Symbol.toStringTag);

/** The class of a typed array, `'Float32Array'` and so on; undefined for anything else. */
export function typedArrayClass(value: unknown): string | undefined {
  return className.call(value) as string | undefined;
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
export function isShared(buffer: ArrayBufferLike): boolean {
  // The common case comes first: the other getter throws at it, which takes longer than multiplying a small layer.
  return !answers(ownLength, buffer) && answers(sharedLength, buffer);
}
