import { basename, dirname, join, resolve } from 'node:path';
import { CONTAINERS } from '../containers/list.js';
import { checkApart, checkReplaceable } from '../files/output-rules.js';
import { checkParent } from '../files/parents.js';
import { HqqError } from '../messages/errors.js';
import { plain, quote } from '../messages/text.js';
import { loadTensors, saveTensors } from '../models/tensors.js';
import { moduleOfGgml } from './ggml-names.js';
import type { Statistics } from './statistics.js';

// Statistics as a file: `<module>.mean_square`, float32, [1, inFeatures], for every linear layer.

const SUFFIX = '.mean_square';
/** In llama.cpp's. */
const [SUMS, COUNTS] = ['.weight.in_sum2', '.weight.counts'] as const;

/** Refuses what could not be written to, before anything is computed for it. @throws {HqqError} `ERR_IO`, `ERR_INVALID_OPTION` */
export async function checkStatisticsOutput(path: string, model: string, force: boolean): Promise<void> {
  const absolute = resolve(path);
  const place = join(await checkParent(dirname(absolute)), basename(absolute));
  await checkApart(place, [model]).catch((error: unknown) => {
    if ((error as HqqError).code !== 'ERR_IO') throw error; // a model in the cache has a name that is no path
  });
  await checkReplaceable(place, 'file', CONTAINERS.find(({ fresh }) => fresh)!, force);
}

/** Writes statistics, whole or not at all. @throws {HqqError} `ERR_IO` */
export async function saveStatistics(
  path: string,
  { source, tokens, meanSquares }: Statistics,
  { force, seed }: { readonly force: boolean; readonly seed: number | undefined },
): Promise<void> {
  const tensors = Object.fromEntries(
    [...meanSquares].map(([module, data]) => [module + SUFFIX, { data, shape: [1, data.length] }]),
  );
  const metadata = {
    statistics: 'mean_square',
    source,
    ...(tokens === undefined ? {} : { tokens: String(tokens) }),
    ...(seed === undefined ? {} : { seed: String(seed) }),
  };
  await saveTensors(path, tensors, { metadata, force });
}

/**
 * Reads them, or an importance matrix of llama.cpp in its GGUF form: `<layer>.weight.in_sum2` over `<layer>.weight.counts`, sums of
 * squares and the rows that they are of.
 *
 * @throws {HqqError} `ERR_IO`, `ERR_CHECKPOINT_FORMAT`; `ERR_CHECKPOINT_CONTENT` for what are none.
 */
export async function readStatistics(path: string): Promise<Statistics> {
  const meanSquares = new Map<string, Float32Array>();
  const tensors = await loadTensors(path);
  for (const [name, tensor] of Object.entries(tensors)) {
    const refuse = (got: string): never => {
      const message = `Expected ${plain(path)} to be statistics of hqq calibrate or an imatrix of llama.cpp, got ${got} in ${quote(name)}.`;
      throw new HqqError('ERR_CHECKPOINT_CONTENT', message);
    };
    const ending = [SUFFIX, SUMS, COUNTS].find((known) => name.endsWith(known));
    if (ending === undefined || !('data' in tensor)) return refuse('another tensor');
    const { data, shape } = tensor;
    if (!(data instanceof Float32Array)) return refuse('other numbers');
    const bad = data.findIndex((value) => !(value >= 0 && value < Infinity));
    if (bad >= 0) return refuse(`${data[bad]} at index ${bad}`);
    if (ending === COUNTS) continue;
    const layer = name.slice(0, -ending.length);
    if (ending === SUMS) {
      const counts = tensors[layer + COUNTS];
      const rows = counts !== undefined && 'data' in counts ? (counts.data as Float32Array) : [];
      if (shape[0] !== 1) continue; // the experts of a layer, which no layer of a file is all of
      if (rows.length !== 1 || !(rows[0]! > 0)) return refuse('sums without a count of rows');
      meanSquares.set(
        moduleOfGgml(layer),
        data.map((sum) => sum / rows[0]!),
      );
    } else if (shape[0] === 1) meanSquares.set(layer, data);
    else return refuse('more than a row');
  }
  return { source: path, tokens: undefined, meanSquares };
}
