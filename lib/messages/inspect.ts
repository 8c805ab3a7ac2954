/** The method that `console.log` of Node (Deno, Bun) asks for how an object looks. Others ignore it. */
export const INSPECT: unique symbol = Symbol.for('nodejs.util.inspect.custom') as typeof INSPECT;

/**
 * What structuredClone and postMessage stop at, as a property of an object that lives in its thread: a copy would have its fields
 * and do nothing. They name it in their error.
 */
export function notCloneable(what: string): symbol {
  return Symbol(what);
}
