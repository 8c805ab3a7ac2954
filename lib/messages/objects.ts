/** The method that `console.log` of Node (Deno, Bun) asks for how an object looks. Others ignore it. */
export const INSPECT: unique symbol = Symbol.for('nodejs.util.inspect.custom') as typeof INSPECT;

/**
 * What structuredClone and postMessage stop at, as a property of an object that lives in its thread: a copy would have its fields
 * and do nothing. They name it in their error.
 */
export function notCloneable(what: string): symbol {
  return Symbol(what);
}

type Method<S extends symbol, R> = { readonly [K in S]: () => R };

/**
 * What `await using` and `using` ask of an object, in TypeScript that knows them. Where its libraries lack the symbols it is nothing,
 * so that their users can compile this package's declarations, too.
 */
type Disposing = (typeof Symbol extends { readonly asyncDispose: infer S extends symbol }
  ? Method<S, Promise<void>>
  : object) &
  (typeof Symbol extends { readonly dispose: infer S extends symbol } ? Method<S, void> : object);

abstract class ClosedByUsing {
  abstract close(): Promise<void>;

  static {
    const { asyncDispose, dispose } = Symbol as { readonly asyncDispose?: symbol; readonly dispose?: symbol };
    const define = (symbol: symbol | undefined, value: (this: ClosedByUsing) => unknown) => {
      if (symbol) Object.defineProperty(ClosedByUsing.prototype, symbol, { value, writable: true, configurable: true });
    };
    define(asyncDispose, async function () {
      await this.close();
    });
    define(dispose, function () {
      void this.close();
    });
  }
}

/** What has `close` extends it: `await using` closes it, `using` begins to, on engines that have the symbols (Node.js from 20.5 on). */
export const Closing = ClosedByUsing as unknown as abstract new () => Disposing;
