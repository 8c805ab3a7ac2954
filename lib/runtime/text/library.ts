import { createRequire } from 'node:module';
import path from 'node:path';

/**
 * Where `@huggingface/tokenizers` is: as seen from here, else from the folder `other`. Throws where it is in neither. The CommonJS
 * build takes library-cjs.ts instead.
 */
export function findTokenizers(other: string): string {
  // Written for tracers and bundlers, as backend/native/gyp.ts is.
  const req = createRequire(import.meta.url || path.join(other, 'package.json'));
  try {
    return req.resolve('@huggingface/tokenizers');
  } catch {
    return req.resolve('@huggingface/tokenizers', { paths: [other] });
  }
}

/** The same for `@huggingface/jinja`. */
export function findJinja(other: string): string {
  const req = createRequire(import.meta.url || path.join(other, 'package.json'));
  try {
    return req.resolve('@huggingface/jinja');
  } catch {
    return req.resolve('@huggingface/jinja', { paths: [other] });
  }
}
