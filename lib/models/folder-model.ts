import { CONTAINERS, openSourceAs } from '../containers/list.js';
import { type FilePath, pathOf } from '../files/path.js';
import { MergedSource } from './adapter/merged-source.js';
import { findLayers } from './layers.js';
import { Model } from './model.js';

/**
 * Opens a model as Hugging Face has it: of a GGUF file, too, names, description and tokenizer are those of a folder.
 *
 * @param adapter A folder of what is merged into its weights.
 * @throws {HqqError} as `openModel`; `ERR_CHECKPOINT_CONTENT` for a file of which no folder can be made
 */
export async function openFolderModel(path: FilePath, adapter?: string): Promise<Model> {
  let source = await openSourceAs(pathOf(path, 'the model'), CONTAINERS[0]!.name);
  try {
    if (adapter !== undefined) source = await MergedSource.over(source, adapter);
    return new Model(source, await findLayers(source));
  } catch (error) {
    await source.close();
    throw error;
  }
}
