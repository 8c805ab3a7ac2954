import { expect } from 'vitest';

// Matchers walk arrays number by number, a microsecond each. Of arrays of one kind, same bytes are the same numbers, NaN and signs of
// zeros too; where bytes differ, the matcher finds the numbers.

const bytesOf = (view: ArrayBufferView) => Buffer.from(view.buffer, view.byteOffset, view.byteLength);

expect.addEqualityTesters([
  (a: unknown, b: unknown) => {
    if (!ArrayBuffer.isView(a) || !ArrayBuffer.isView(b)) return undefined;
    const isSame = a.constructor === b.constructor && a.byteLength === b.byteLength && bytesOf(a).equals(bytesOf(b));
    return isSame || undefined;
  },
]);
