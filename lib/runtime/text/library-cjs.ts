declare const require: NodeJS.Require;

/** The place of library.ts in the CommonJS build: a plain `require`, which programs that trace files follow. */
export function findTokenizers(other: string): string {
  try {
    return require.resolve('@huggingface/tokenizers');
  } catch {
    return require.resolve('@huggingface/tokenizers', { paths: [other] });
  }
}
