import type { Fields } from './fields.js';

// How many positions each layer sees.

/** `null` is none; a file that does not say has what its architecture has. */
export function slidingWindow(fields: Fields): number {
  return fields.get('sliding_window') === undefined ? 0 : fields.count('sliding_window');
}

/** `layer_types` says it layer by layer; older files leave it to the architecture. */
export function readWindows(
  fields: Fields,
  layers: number,
  window: (fields: Fields, layer: number) => number,
): readonly number[] {
  const types = fields.get('layer_types');
  if (types === undefined) return Array.from({ length: layers }, (_, layer) => window(fields, layer));
  if (!Array.isArray(types) || types.length !== layers) throw fields.wrong('layer_types', `to have ${layers} entries`);
  return types.map((type) => {
    if (type === 'full_attention') return 0;
    if (type === 'sliding_attention') return fields.count('sliding_window');
    throw fields.unsupported('layer_types', 'full_attention and sliding_attention');
  });
}

/** Layers below max_window_layers see everything, and without use_sliding_window all do. */
export function lateWindow(fields: Fields, layer: number): number {
  const late = fields.flag('use_sliding_window', false) && layer >= fields.count('max_window_layers', 28, 0);
  return late ? slidingWindow(fields) : 0;
}
