declare const require: NodeJS.Require;

/** The place of library.ts in the CommonJS build: a plain `require`, which programs that trace files follow. */
export function findTokenizers(other: string): string {
  try {
    return require.resolve('@huggingface/tokenizers');
  } catch {
    return require.resolve('@huggingface/tokenizers', { paths: [other] });
  }
}

/** The same for `@huggingface/jinja`. */
export function findJinja(other: string): string {
  try {
    return require.resolve('@huggingface/jinja');
  } catch {
    return require.resolve('@huggingface/jinja', { paths: [other] });
  }
}
