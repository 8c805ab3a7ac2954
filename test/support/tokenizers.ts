import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SHIPPED } from './language-models.js';

interface TokenizerJson {
  readonly model: { readonly vocab: Record<string, number>; readonly merges: (string | [string, string])[] };
}

/** Gives `folder` the shipped tokenizer, with a vocabulary of `size` tokens: what real models have. */
export function writeLargeTokenizer(folder: string, size = 50_000): void {
  const tokenizer = JSON.parse(readFileSync(join(SHIPPED, 'tokenizer.json'), 'utf8')) as TokenizerJson;
  const { vocab, merges } = tokenizer.model;
  const known = Object.keys(vocab).slice(300);
  for (let i = 0; Object.keys(vocab).length < size && i < known.length; i++) {
    for (const right of known.slice(0, Math.ceil(size / known.length) + 40)) {
      const merged = known[i]! + right;
      if (merged in vocab) continue;
      vocab[merged] = Object.keys(vocab).length;
      merges.push(typeof merges[0] === 'string' ? `${known[i]} ${right}` : [known[i]!, right]);
    }
  }
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer, null, 1));
}
