import type { Fields } from '../fields.js';

/** Most experts of a block; real models have some hundred. */
const MAX_EXPERTS = 4096;

/** What files call the number of experts: transformers takes either, and writes the latter since 5.0. */
export const EXPERT_FIELDS = ['num_experts', 'num_local_experts'] as const;

/** How many experts there are, 0 included, and how many a position goes through. @param fallback Where the file does not say. */
export function expertCounts(fields: Fields, fallback: number): { readonly count: number; readonly chosen: number } {
  const [name, other] = EXPERT_FIELDS.filter((field) => fields.get(field) !== undefined);
  const count = fields.count(name ?? EXPERT_FIELDS[0], fallback, 0, MAX_EXPERTS);
  if (other !== undefined && fields.get(other) !== count) throw fields.wrong(other, `to be ${count}, as ${name} is`);
  return { count, chosen: count === 0 ? 0 : fields.count('num_experts_per_tok', undefined, 1, count) };
}
