import type { LayOutArgs, PanelArgs } from '../../../binding.js';
import { PANEL } from '../../matrix/constants.js';
import { provide } from './backend.js';
import { floatOfHalf, halfOfFloat } from './lanes.js';
import type { Units } from './slices.js';

// Panels whose scales and zeros take less room than two float32 each. Operations read the others: these are made such for each call.

const isShort = ({ shape }: PanelArgs): boolean => shape.length > 4;

/** Such panels without their scales and zeros, which have a float32 each. */
function lengthened<P extends PanelArgs>(panels: P) {
  const { shape, meta: short } = panels;
  const [zero, isHalf] = [shape[4]!, shape[5] === 1];
  const meta = new Float32Array(zero < 0 ? short.length : 2 * short.length).fill(zero);
  /** Calls `body` with places in both. */
  const each = (body: (short: number, long: number) => void) => {
    for (let i = 0; i < short.length; i++) body(i, zero < 0 ? i : 2 * i - (i % PANEL));
  };
  return { isHalf, each, panels: { ...panels, shape: shape.slice(0, 4), meta } };
}

/** The same panels with a float32 for each scale and zero. */
function whole<P extends PanelArgs>(args: P): P {
  if (!isShort(args)) return args;
  const { isHalf, each, panels } = lengthened(args);
  each((i, at) => {
    panels.meta[at] = isHalf ? floatOfHalf(args.meta[i]!) : args.meta[i]!;
  });
  return panels;
}

/** Lets the operations in JavaScript take such panels, too. */
export function provideShortMeta(): void {
  const before = provide({
    *layOut(args: LayOutArgs): Units {
      if (!isShort(args)) return yield* before.layOut!(args);
      const { isHalf, each, panels } = lengthened(args);
      yield* before.layOut!(panels);
      each((i, at) => {
        args.meta[i] = isHalf ? halfOfFloat(panels.meta[at]!) : panels.meta[at]!;
      });
    },
    expand: (args) => before.expand!(whole(args)),
    linear: (args) => before.linear!({ ...args, layers: args.layers.map(whole) }),
  });
}
