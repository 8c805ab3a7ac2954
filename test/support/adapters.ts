import * as fs from 'node:fs';
import { join } from 'node:path';
import { encode, freshPath, numbersOf, readBack, type Source, tensorOf } from './checkpoints.js';

// LoRA adapters as peft saves them, and what their merge makes of a model, by the tests' own few lines.

/** What peft writes of one that is no more than that. */
export const LORA_CONFIG = { peft_type: 'LORA', r: 2, lora_alpha: 4 };

/** A folder with an adapter. */
export function adapterFolder(source: Source, config: Readonly<Record<string, unknown>> = LORA_CONFIG): string {
  const folder = freshPath('adapter');
  fs.mkdirSync(folder);
  fs.writeFileSync(join(folder, 'adapter_config.json'), JSON.stringify(config));
  fs.writeFileSync(join(folder, 'adapter_model.safetensors'), encode(source));
  return folder;
}

/** The tensors of a model's folder whose weights lie in float32. */
function matricesOf(folder: string): Map<string, { readonly shape: readonly number[]; readonly values: Float32Array }> {
  return new Map(
    [...readBack(folder)].map(([name, { dtype, shape, bytes }]) => [
      name,
      { shape, values: numbersOf({ dtype, shape, bytes }) },
    ]),
  );
}

/** An adapter of some layers of a model: of every one whose module `wanted` matches, and of ranks 1 to 3. */
export function someAdapter(folder: string, seed: number, wanted = /proj|experts|gate$|lm_head/): Source {
  const source: Record<string, Source[string]> = {};
  const wave = (count: number, phase: number) =>
    Float32Array.from({ length: count }, (_, i) => Math.sin(phase + i) / 4);
  for (const [name, { shape }] of matricesOf(folder)) {
    const module = name.replace(/\.weight$/, '');
    if (shape.length !== 2 || !wanted.test(module)) continue;
    const at = `base_model.model.${module}`;
    const rank = 1 + ((Object.keys(source).length / 2 + seed) % 3);
    source[`${at}.lora_A.weight`] = tensorOf(wave(rank * shape[1]!, seed), [rank, shape[1]!]);
    source[`${at}.lora_B.weight`] = tensorOf(wave(shape[0]! * rank, 2 * seed + 1), [shape[0]!, rank]);
  }
  return source;
}

/** A model in float32 with adapters merged into it. The scale is that of `LORA_CONFIG`, alpha by rank. */
export function mergedFolder(folder: string, adapters: readonly Source[]): string {
  const merged = freshPath('merged');
  fs.cpSync(folder, merged, { recursive: true });
  const tensors = matricesOf(folder);
  for (const source of adapters) {
    for (const [name, a] of Object.entries(source)) {
      const module = /^base_model\.model\.(.+)\.lora_A\.weight$/.exec(name)?.[1];
      if (module === undefined) continue;
      const [down, up] = [numbersOf(a), numbersOf(source[name.replace('lora_A', 'lora_B')]!)];
      const { shape, values } = tensors.get(`${module}.weight`)!;
      const [rows, cols] = shape as readonly [number, number];
      const [rank] = a.shape as readonly [number];
      for (let row = 0; row < rows; row++)
        for (let col = 0; col < cols; col++) {
          let sum = 0;
          for (let k = 0; k < rank; k++) sum += up[row * rank + k]! * down[k * cols + col]!;
          values[row * cols + col]! += (LORA_CONFIG.lora_alpha / rank) * sum;
        }
    }
  }
  const source = Object.fromEntries([...tensors].map(([name, { shape, values }]) => [name, tensorOf(values, shape)]));
  fs.writeFileSync(join(merged, 'model.safetensors'), encode(source));
  return merged;
}
