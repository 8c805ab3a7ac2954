import { loadLanguageModel } from '../runtime/load.js';
import { textLengths } from './ids.js';

interface OwnRun {
  readonly tokens: number;
  readonly seed: number;
  readonly threads: number | undefined;
  readonly signal: AbortSignal | undefined;
  readonly progress: (done: number) => void;
}

/**
 * Texts that the model writes itself, drawn as it says, each from the token that begins a text: where it ends one, it begins the next.
 * The whole model is in memory meanwhile.
 */
export async function ownTexts(
  path: string,
  { tokens, seed, threads, signal, progress }: OwnRun,
): Promise<readonly Uint32Array[]> {
  const model = await loadLanguageModel(path, { threads, signal });
  try {
    const { beginId, endIds, vocabSize } = model.config;
    const begin = [beginId, endIds[0]].find((id) => id !== undefined && id < vocabSize) ?? 0;
    const texts: Uint32Array[] = [];
    let done = 0;
    for (const [index, length] of textLengths(tokens, model.config).entries()) {
      const ids: number[] = [];
      // Every piece of every text draws with numbers of its own.
      for (let piece = 0; ids.length < length; piece++) {
        ids.push(begin);
        const own = { temperature: 1, seed: (seed + index * 2 ** 32 + piece * 2 ** 44) % 2 ** 53 };
        const maxTokens = Math.max(1, length - ids.length);
        for await (const { id } of model.generate([begin], { ...own, maxTokens, signal })) {
          ids.push(id);
          progress(done + Math.min(ids.length, length));
        }
      }
      texts.push(Uint32Array.from(ids.slice(0, length)));
      done += length;
    }
    return texts;
  } finally {
    await model.close();
  }
}
