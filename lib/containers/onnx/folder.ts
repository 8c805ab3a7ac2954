import * as fs from 'node:fs/promises';
import { basename, join } from 'node:path';
import { readWhole } from '../../files/io.js';
import { parseJson } from '../../files/json.js';
import { listFolder } from '../../files/model-folder.js';
import { HqqError } from '../../messages/errors.js';
import { formatError, plain, quoteSome } from '../../messages/text.js';
import { OnnxEnvelope } from './envelope.js';
import { OnnxSource, type OpenModel, openOnnx } from './source.js';
import { CONFIG, widthOf, withoutType } from './transformers-js.js';

// Folders as transformers.js has them: config.json, the files of a tokenizer, and onnx/ with one model or several.

/** Where models lie in such a folder; exports of optimum have them at the top. */
const FOLDERS = ['onnx', ''];

/** Largest config.json that is read. */
const MAX_CONFIG_BYTES = 16 * 1024 * 1024;

/** Most models of a folder. Real ones have up to five. */
const MAX_MODELS = 64;

/** Files that hold tensors of models: not carried over. */
const DATA = /\.onnx(_data(_\d+)?|\.data)$/;

async function modelsIn(path: string): Promise<readonly string[]> {
  for (const folder of FOLDERS) {
    const names = await fs.readdir(join(path, folder)).catch((): string[] => []);
    const models = names.filter((name) => name.endsWith('.onnx')).sort();
    if (models.length > 0) return models.map((name) => (folder === '' ? name : `${folder}/${name}`));
  }
  return [];
}

/** Whether a folder is such a model, and not one of another format that comes with ONNX files too. */
export async function isOnnxFolder(path: string): Promise<boolean> {
  const names = await fs.readdir(path).catch((): string[] => []);
  if (!names.includes(CONFIG) || names.some((name) => /\.safetensors(\.index\.json)?$/.test(name))) return false;
  return (await modelsIn(path)).length > 0;
}

/** Opens such a folder: its float models, or, where it has none, what is there. */
export async function openFolder(path: string): Promise<OnnxSource> {
  const all = await modelsIn(path);
  const floats = all.filter((name) => withoutType(name) === name);
  const chosen = floats.length > 0 ? floats : all;
  if (chosen.length > MAX_MODELS) {
    const message = `Expected ${plain(path)} to hold at most ${MAX_MODELS} models, got ${chosen.length}`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. Pass one of the files.`);
  }
  const listing = await listFolder(path);
  const stray = chosen.find((name) => listing.strays.has(name));
  if (stray !== undefined) {
    const message = `${plain(join(path, stray))} is a link that leads out of the folder, and is not read`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. Copy the file.`);
  }
  const text = (await readWhole(join(path, CONFIG), MAX_CONFIG_BYTES)).toString('utf8');
  const value = parseJson(Buffer.from(text), { file: join(path, CONFIG), allowNonFinite: true });
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw formatError(join(path, CONFIG), 'expected a JSON object.');
  const config = { text, value: value as Readonly<Record<string, unknown>> };
  const models: OpenModel[] = [];
  // Several forms of one model have the same tensors: then each file's own name goes before them.
  const bare = chosen.map((name) => basename(withoutType(name), '.onnx'));
  const single = new Set(bare).size === bare.length;
  const stems = single ? bare : chosen.map((name) => basename(name, '.onnx'));
  const widths = chosen.map(widthOf);
  try {
    for (const [i, name] of chosen.entries()) {
      const prefix = chosen.length === 1 ? '' : `${stems[i]}/`;
      models.push(await openOnnx(join(path, name), name, prefix));
    }
  } catch (error) {
    await Promise.all(models.flatMap(({ parts }) => parts.map(({ file }) => file.close())));
    throw error;
  }
  const own = new Set(models.flatMap(({ parts }) => parts.map(({ file }) => file.path)));
  const files = listing.files.filter((name) => name !== CONFIG && !DATA.test(name) && !own.has(join(path, name)));
  const left = all.filter((name) => !chosen.includes(name));
  const known = new Set([...all, CONFIG]);
  const skipped = listing.skipped.filter((name) => !known.has(name) && !DATA.test(name) && !own.has(join(path, name)));
  const notes = [
    ...(left.length === 0 ? [] : [`Not carried over, as other forms of the same models: ${quoteSome(left)}.`]),
    ...(skipped.length === 0
      ? []
      : [`Not carried over, as other weights, or links out of the folder: ${quoteSome(skipped)}.`]),
  ];
  return new OnnxSource(
    path,
    'folder',
    models,
    new OnnxEnvelope({ models: models.map(({ model }) => model), notes, folder: { path, files, config } }),
    {
      ...(left.length > 0 && { unread: left }),
      ...(!single && !widths.includes(undefined) && { widths: [...new Set(widths as number[])] }),
    },
  );
}
