import { expect, it } from 'vitest';
import type { DTypeId } from '../binding.js';
import { availableBackends, openBackend } from '../lib/backend/index.js';
import { provide } from '../lib/backend/js/backend.js';
import { turn } from '../lib/backend/js/turn.js';

provide({ turn });

const NATIVE = availableBackends().filter((name) => name !== 'js');

it.each([...NATIVE, 'js'])('%s turns columns of a matrix, bit by bit', (name) => {
  const backend = openBackend(name);
  for (const dtype of [0, 1, 2] as const satisfies readonly DTypeId[]) {
    for (const [rows, first, cols, more] of [
      [1, 0, 1, 0],
      [17, 3, 33, 2],
      [70, 0, 1030, 0],
      [130, 5, 40, 1],
    ] as const) {
      const stride = first + cols + more;
      const bits = dtype === 0 ? new Uint32Array(rows * stride) : new Uint16Array(rows * stride);
      bits.forEach((_, i) => void (bits[i] = i * 2654435761)); // NaN with a payload, too
      const of = (array: typeof bits) => (dtype === 0 ? new Float32Array(array.buffer) : (array as Uint16Array));
      const turned = bits.slice(0, rows * cols);
      backend.run('turn', { from: of(bits), dtype, rows, stride, first, cols, to: of(turned), threads: 2 });
      const wrong = turned.findIndex((x, i) => x !== bits[(i % rows) * stride + first + Math.floor(i / rows)]);
      expect(wrong, `${rows} x ${cols} of ${stride}, type ${dtype}`).toBe(-1);
    }
  }
});

it
  .runIf(NATIVE.length > 0)
  .each([{ first: 4 }, { cols: 6 }, { rows: 5 }, { from: new Uint16Array(20) }, { to: new Float32Array(7) }])(
  'refuses what would read or write elsewhere: %o',
  (wrong) => {
    const args = { dtype: 0, rows: 4, stride: 5, first: 3, cols: 2, threads: 1 } as const;
    const arrays = { from: new Float32Array(20), to: new Float32Array(8) };
    const run = (more: object) => openBackend(NATIVE[0]!).run('turn', { ...args, ...arrays, ...more });
    expect(() => run({})).not.toThrow();
    expect(() => run(wrong)).toThrow(/^Expected /);
  },
);
