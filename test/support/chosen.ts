import type { TensorSource } from '../../lib/containers/container.js';
import type { ChosenCodes } from '../../lib/containers/grid.js';

/** A model of which somebody has chosen the codes, scales and zeros of some weights. */
export function withChosen(source: TensorSource, codes: ReadonlyMap<string, ChosenCodes>): TensorSource {
  const own = Object.assign(Object.create(source) as TensorSource, {
    chosen: async ({ name }: { readonly name: string }) => codes.get(name),
    close: async () => {},
  });
  return new Proxy(own, {
    get(target, key) {
      if (Object.hasOwn(target, key)) return Reflect.get(target, key);
      const value: unknown = Reflect.get(source, key); // methods of the source are its own
      return typeof value === 'function' ? value.bind(source) : value;
    },
  });
}
