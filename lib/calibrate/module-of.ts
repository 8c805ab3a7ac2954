import type { TensorSource } from '../containers/container.js';
import { layerOf } from '../containers/names.js';
import type { PlannedLayer } from '../schemes/scheme.js';
import { moduleOfGgml } from './ggml-names.js';

/** The last layer of a language model. */
export const HEAD = 'lm_head';

/** The module whose statistics a layer has: those of the head are a tied embedding's. */
export function moduleOf({ site }: PlannedLayer, { entries, envelope }: TensorSource): string {
  const tied = envelope.config?.tie_word_embeddings === true && !entries.has(`${HEAD}.weight`);
  if (tied && layerOf(site.weight.name) === 'model.embed_tokens') return HEAD;
  return moduleOfGgml(site.original ?? site.name, !entries.has('output.weight'));
}
