import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { safetensorsBytes } from './models.js';

// Small encoders as transformers computes them: scripts/golden-encoders.py writes the file.

/** One of them. */
export interface GoldenEncoder {
  readonly name: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  readonly hidden: readonly (readonly number[])[];
}

/** How long the text is that they have read, which tokens of it are shown, and the encoders. */
export const GOLDEN_ENCODERS = JSON.parse(
  readFileSync(new URL('../golden/encoders.json', import.meta.url), 'utf8'),
) as {
  readonly length: number;
  readonly shown: readonly number[];
  readonly cases: readonly GoldenEncoder[];
};
/** The weights by the formula of the script: tensors in the order of their names. */
function weightsOf(shapes: GoldenEncoder['shapes']) {
  let state = 1;
  const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32 - 0.5;
  const sorted = Object.entries(shapes).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(
    sorted.map(([name, shape]) => {
      const scale = shape.length === 2 ? 4 / shape[1]! ** 0.5 : 1;
      const of = name.endsWith('LayerNorm.weight') ? (v: number) => 1 + v : (v: number) => v * scale;
      return [name, { shape, data: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => of(next())) }];
    }),
  );
}

/** Writes one as a folder. */
export function writeEncoder(folder: string, { config, shapes }: GoldenEncoder, change: object = {}): string {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...config, ...change }));
  writeFileSync(join(folder, 'model.safetensors'), safetensorsBytes(weightsOf(shapes)));
  return folder;
}

/** A tokenizer of WordPiece with as many words as the models have ids. */
export function writeTokenizer(folder: string): void {
  const words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'the', 'sea', 'is', 'calm', '##er', 'a', 'ship'];
  const vocab = Object.fromEntries([...words, ...Array.from({ length: 29 }, (_, i) => `w${i}`)].map((w, i) => [w, i]));
  const special = (id: string) => ({ SpecialToken: { id, type_id: 0 } });
  const single = [special('[CLS]'), { Sequence: { id: 'A', type_id: 0 } }, special('[SEP]')];
  const named = (id: string) => ({ id, ids: [vocab[id]], tokens: [id] });
  const tokenizer = {
    ...{ version: '1.0', truncation: null, padding: null, decoder: { type: 'WordPiece', prefix: '##', cleanup: true } },
    added_tokens: words.slice(0, 4).map((content, id) => ({ id, content, special: true })),
    normalizer: { type: 'BertNormalizer', clean_text: true, handle_chinese_chars: true, lowercase: true },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    post_processor: {
      ...{ type: 'TemplateProcessing', single, pair: single },
      special_tokens: { '[CLS]': named('[CLS]'), '[SEP]': named('[SEP]') },
    },
    model: {
      ...{ type: 'WordPiece', unk_token: '[UNK]', continuing_subword_prefix: '##', max_input_chars_per_word: 100 },
      vocab,
    },
  };
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer));
}
