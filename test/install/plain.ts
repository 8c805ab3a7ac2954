// Compiled by test:install without the declarations of Node, by libraries that know nothing of `using`.
import { type Model, openModel, type QuantizedTensor, quantize } from 'hqq';
import { type LanguageModel, loadLanguageModel } from 'hqq/runtime';

export async function use(signal: AbortSignal): Promise<number> {
  const q: QuantizedTensor = await quantize({ data: new Float32Array(64), shape: [1, 64] }, {}, { signal });
  const model: Model = await openModel('folder');
  const language: LanguageModel = await loadLanguageModel('folder');
  await Promise.all([model.close(), language.close()]);
  return q.scale.length + model.tensor('name').length + language.maxContext;
}

// @ts-expect-error There is no such method.
export const wrong = (model: Model) => model.dispose();
