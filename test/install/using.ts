// Compiled by test:install where TypeScript knows `using`.
import { openModel } from 'hqq';
import { loadLanguageModel } from 'hqq/runtime';

export async function names(folder: URL): Promise<number> {
  await using model = await openModel(folder);
  await using language = await loadLanguageModel(folder);
  using same = await openModel(folder.pathname);
  return model.names.length + language.maxContext + same.names.length;
}

// @ts-expect-error A layer has nothing to close.
export const layer = (model: Awaited<ReturnType<typeof openModel>>) => model.linear('name')[Symbol.dispose];
