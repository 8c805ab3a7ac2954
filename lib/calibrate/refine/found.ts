import type { TensorSource } from '../../containers/container.js';
import type { PlannedLayer } from '../../schemes/scheme.js';
import type { SeenLayer } from './refine-layers.js';

export interface Refined {
  /** The model with the weights that are to be quantized; to be closed. */
  readonly refined: TensorSource;
  /** What errors count, by name of the layer: of all whose inputs were seen. */
  readonly importance: ReadonlyMap<string, Float32Array>;
  /** Layers that have no error feedback. */
  readonly without: readonly string[];
}

/** What has been found of layers so far. */
export class Found {
  readonly #importance = new Map<string, Float32Array>();
  readonly #fed = new Set<string>();

  add(seen: readonly SeenLayer[]): void {
    for (const { name, importance, fed } of seen) {
      this.#importance.set(name, importance);
      if (fed) this.#fed.add(name);
    }
  }

  of(layers: readonly PlannedLayer[]): Omit<Refined, 'refined'> {
    const without = layers.map(({ site }) => site.name).filter((name) => !this.#fed.has(name));
    return { importance: this.#importance, without };
  }
}
