import type { TensorEntry } from '../container.js';
import { layerOf } from '../names.js';

// Where nothing is known of a model's modules: matrices that may be no layers, because their names or their places say so.

/** Words in the last part of a module's path that tell of rows which are looked up or learned: tokens, queries, positions. */
const LOOKED_UP = /^(table|token|querie|query|embedding|embed|position|codebook)s?$/i;
/** Words that tell of a layer all the same: `query_key_value`, `token_proj`. */
const LAYER =
  /^(proj|projection|linear|dense|fc\d*|w\d*|layer|mlp|key|value|in|out|gate|up|down|head|mix|mixing|mixer)$/i;

/**
 * Why a matrix, by the name of its module, may be no layer; undefined where a layer is what it looks like: it has a bias, stands in
 * a block that is numbered, or beside other matrices.
 */
export function lookupsOf(entries: ReadonlyMap<string, TensorEntry>): (module: string) => string | undefined {
  const modules = new Set<string>();
  const siblings = new Map<string, number>();
  for (const { name, shape } of entries.values()) {
    const module = layerOf(name);
    if (shape.length !== 2 || module === name) continue;
    modules.add(module);
    if (!isLookedUp(leafOf(module))) siblings.set(parentOf(module), (siblings.get(parentOf(module)) ?? 0) + 1);
  }
  const numbered = (module: string) => /(^|\.)\d+(\.|$)/.test(module);
  const blocks = [...modules].some(numbered);
  return (module) => {
    if (entries.get(`${module}.bias`)?.shape.length === 1) return undefined;
    const leaf = leafOf(module);
    const attention = leaf === 'query' && numbered(module);
    if (isLookedUp(leaf) && !attention) return 'called as what is looked up or learned, not as a layer';
    const marked = !blocks || numbered(module) || (siblings.get(parentOf(module)) ?? 0) > 1;
    return marked ? undefined : 'nothing beside it says that it is a layer';
  };
}

function isLookedUp(leaf: string): boolean {
  const words = leaf.split(/[_\-\d]+|(?<=[a-z])(?=[A-Z])/);
  return words.some((word) => LOOKED_UP.test(word)) && !words.some((word) => LAYER.test(word));
}

function leafOf(module: string): string {
  return module.slice(module.lastIndexOf('.') + 1);
}

function parentOf(module: string): string {
  return module.slice(0, module.lastIndexOf('.') + 1);
}
