import { ourName } from '../containers/gguf/language/names.js';

/** The module that a layer of llama.cpp is, by the names of the Llama family; others stay what they are called. `tied`: no head beside. */
export function moduleOfGgml(name: string, tied = false): string {
  if (tied && name === 'token_embd') return 'lm_head';
  return ourName(`${name}.weight`)?.replace(/\.weight$/, '') ?? name;
}
