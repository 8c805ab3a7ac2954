const IDS = new WeakMap<object, number>();
let lastId = 0;

/** A number for each object, 0 for none: what keys are made of. */
export function idOf(one: object | undefined): number {
  if (!one) return 0;
  let id = IDS.get(one);
  if (id === undefined) {
    lastId += 1;
    id = lastId;
    IDS.set(one, id);
  }
  return id;
}
