// llama.cpp, as node-llama-cpp has it: a prebuilt one, on the processor.
import { getLlama, LlamaLogLevel } from 'node-llama-cpp';

export const llama = await getLlama({ gpu: false, build: 'never', logLevel: LlamaLogLevel.error });

/** Loads a file, and closes it after `work`. */
export async function withModel(modelPath, work) {
  const model = await llama.loadModel({ modelPath, useMmap: false });
  try {
    return await work(model);
  } finally {
    await model.dispose();
  }
}

/** Keys and values as they are computed, not rounded to 16 bits; one thread, since several wait by spinning. */
const EXACT = {
  experimentalKvCacheKeyType: 'F32',
  experimentalKvCacheValueType: 'F32',
  flashAttention: false,
  threads: 1,
};

const ALL = { probabilities: true, options: { temperature: 1, topK: 0, topP: 1, minP: 0 } };

/** After every id, how likely each token is: maps from ids to probabilities, the likeliest first. */
export async function probabilitiesOf(model, ids, contextSize = 256) {
  const context = await model.createContext({ contextSize, ...EXACT });
  try {
    const out = await context.getSequence().controlledEvaluate(ids.map((id) => [id, { generateNext: ALL }]));
    return out.map(({ next }) => next.probabilities);
  } finally {
    await context.dispose();
  }
}

/** The likeliest token and its probability. */
export function topOf(probabilities) {
  let top = [-1, 0];
  for (const [id, probability] of probabilities) if (probability > top[1]) top = [id, probability];
  return top;
}

/** Perplexity of ids, in windows of which the first token is only read. */
export async function perplexityOf(model, ids, window = 100) {
  let [nats, count] = [0, 0];
  for (let at = 0; at + window < ids.length; at += window) {
    const next = await probabilitiesOf(model, ids.slice(at, at + window));
    for (const [i, probabilities] of next.entries()) nats -= Math.log(probabilities.get(ids[at + i + 1]) ?? 1e-12);
    count += window;
  }
  return Math.exp(nats / count);
}

/** The likeliest tokens after ids, one after the other. */
export async function greedy(model, ids, count) {
  const context = await model.createContext({ contextSize: 256, ...EXACT });
  try {
    const written = [];
    for await (const id of context.getSequence().evaluate(ids, { temperature: 0 })) {
      written.push(id);
      if (written.length === count) break;
    }
    return written;
  } finally {
    await context.dispose();
  }
}
