import { expect } from 'vitest';

/** Same bytes, compared as memory: matchers that walk typed arrays element by element take minutes over a golden file. */
export function expectSameBytes(got: ArrayBufferView, expected: ArrayBufferView): void {
  const [a, b] = [got, expected].map((view) => Buffer.from(view.buffer, view.byteOffset, view.byteLength)) as [
    Buffer,
    Buffer,
  ];
  if (a.equals(b)) return;
  const at = a.findIndex((byte, i) => byte !== b[i]);
  expect.fail(`${a.length} bytes against ${b.length}: byte ${at} is ${a[at]}, expected ${b[at]}`);
}
