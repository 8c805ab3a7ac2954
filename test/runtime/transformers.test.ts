import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import { safetensorsBytes } from '../support/models.js';
import { scratchFolder } from '../support/scratch.js';

// Small models as transformers computes them: scripts/golden-language-models.py writes the file.

interface Config extends Record<string, unknown> {
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly head_dim?: number;
  readonly vocab_size: number;
}
interface Golden {
  readonly lengths: readonly number[];
  readonly cases: readonly {
    readonly name: string;
    readonly config: Config;
    readonly logits: readonly (readonly number[])[];
  }[];
}

const golden = JSON.parse(readFileSync(new URL('../golden/language-models.json', import.meta.url), 'utf8')) as Golden;
const work = scratchFolder('transformers');

/** Names and shapes of a model's tensors. */
function shapes(c: Config): Record<string, number[]> {
  const headDim = c.head_dim ?? c.hidden_size / c.num_attention_heads;
  const widths = {
    q: c.num_attention_heads * headDim,
    k: c.num_key_value_heads * headDim,
    v: c.num_key_value_heads * headDim,
  };
  const all: Record<string, number[]> = {
    'model.embed_tokens.weight': [c.vocab_size, c.hidden_size],
    'model.norm.weight': [c.hidden_size],
  };
  if (!c.tie_word_embeddings) all['lm_head.weight'] = [c.vocab_size, c.hidden_size];
  for (let layer = 0; layer < c.num_hidden_layers; layer++) {
    const at = `model.layers.${layer}`;
    const linear = (name: string, out: number, cols: number, bias: boolean) => {
      all[`${at}.${name}.weight`] = [out, cols];
      if (bias) all[`${at}.${name}.bias`] = [out];
    };
    const attentionBias = c.attention_bias === true;
    for (const [name, out] of Object.entries(widths)) {
      linear(`self_attn.${name}_proj`, out, c.hidden_size, attentionBias || c.model_type === 'qwen2');
    }
    linear('self_attn.o_proj', c.hidden_size, widths.q, attentionBias);
    for (const name of ['gate', 'up'])
      linear(`mlp.${name}_proj`, c.intermediate_size, c.hidden_size, c.mlp_bias === true);
    linear('mlp.down_proj', c.hidden_size, c.intermediate_size, c.mlp_bias === true);
    if (c.model_type === 'qwen3') for (const name of ['q', 'k']) all[`${at}.self_attn.${name}_norm.weight`] = [headDim];
    for (const name of ['input', 'post_attention']) all[`${at}.${name}_layernorm.weight`] = [c.hidden_size];
  }
  return all;
}

/** The weights by the formula of the script: tensors in the order of their names. */
function weightsOf(config: Config): Record<string, { shape: number[]; data: Float32Array }> {
  let state = 1;
  const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32 - 0.5;
  const sorted = Object.entries(shapes(config)).sort(([a], [b]) => (a < b ? -1 : 1));
  const entries = sorted.map(([name, shape]) => {
    const scale = shape.length === 2 ? (v: number) => (v * 4) / shape[1]! ** 0.5 : (v: number) => v;
    const of = name.includes('norm') ? (v: number) => 1 + v : scale;
    const data = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => of(next()));
    return [name, { shape, data }] as const;
  });
  return Object.fromEntries(entries);
}

describe('logits of transformers', () => {
  test.each(golden.cases)('$name', async ({ name, config, logits }) => {
    const folder = join(work, name.replaceAll(/\W/g, '-'));
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
    writeFileSync(join(folder, 'model.safetensors'), safetensorsBytes(weightsOf(config)));
    const model = await loadLanguageModel(folder, { maxContext: 512 });
    for (const [i, length] of golden.lengths.entries()) {
      const ids = Array.from({ length }, (_, at) => (at * at * 7 + at * 3) % 40);
      const got = await model.forward(ids, model.createCache());
      const most = Math.max(...logits[i]!.map(Math.abs));
      // transformers turns heads by angles in float32: at position 300 they are off by some 1e-5.
      logits[i]!.forEach((want, at) =>
        expect(Math.abs(got[at]! - want) / most, `${length} tokens, logit ${at}`).toBeLessThan(1e-4),
      );
    }
    await model.close();
  });
});
