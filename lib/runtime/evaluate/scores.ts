/** What is summed up over the tokens that one model scored. */
export interface Sums {
  tokens: number;
  /** Of the negative log likelihoods, in nats. */
  nll: number;
  /** Of the divergences from the original. */
  divergence: number;
  /** Tokens for which both find the same one the likeliest. */
  agreements: number;
}

export const newSums = (): Sums => ({ tokens: 0, nll: 0, divergence: 0, agreements: 0 });

/**
 * Adds a token: `p` and `q` are the logits of the original and of the model, `target` the token that came. The divergence is that of
 * Kullback and Leibler, `sum of P ln (P / Q)` with P and Q the softmax of both, in nats.
 */
export function addToken(sums: Sums, p: Float32Array, q: Float32Array, target: number): void {
  const [most, mostOfOther] = [likeliest(p), likeliest(q)];
  const [highest, highestOfOther] = [p[most]!, q[mostOfOther]!];
  let [mass, massOfOther, gap] = [0, 0, 0];
  for (let i = 0; i < p.length; i++) {
    const part = Math.exp(p[i]! - highest);
    mass += part;
    massOfOther += Math.exp(q[i]! - highestOfOther);
    gap += part * (p[i]! - q[i]!);
  }
  const logMass = highest + Math.log(mass);
  const logMassOfOther = highestOfOther + Math.log(massOfOther);
  sums.tokens++;
  sums.nll += logMassOfOther - q[target]!;
  sums.divergence += gap / mass - logMass + logMassOfOther;
  if (most === mostOfOther) sums.agreements++;
}

/** The first of the largest. */
function likeliest(logits: Float32Array): number {
  let at = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[at]!) at = i;
  return at;
}
