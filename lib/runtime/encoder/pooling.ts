import { join } from 'node:path';
import { readWhole, systemCode } from '../../files/io.js';
import { parseJson } from '../../files/json.js';
import { HqqError } from '../../messages/errors.js';
import { Fields } from '../config/fields.js';

/** How one vector comes of what a text's tokens are, as sentence-transformers says it. */
export interface Pooling {
  /** `cls`: that of the first token; `mean`: the mean of all; `max`: the greatest of each number. */
  readonly mode: 'cls' | 'mean' | 'max';
  /** Whether vectors are made as long as 1. */
  readonly normalize: boolean;
}

/** Largest file of sentence-transformers that is read. Real ones have a few hundred bytes. */
const MAX_BYTES = 1 << 20;

/** Where nothing is said: as sentence-transformers makes of a plain BERT; and lengths mean nothing where vectors are compared. */
const USUAL: Pooling = { mode: 'mean', normalize: true };

/** What `modules.json` and the pooling's config.json of a folder say. @throws {HqqError} `ERR_CHECKPOINT_CONTENT`, `ERR_CHECKPOINT_FORMAT` */
export async function readPooling(folder: string): Promise<Pooling> {
  const modules = await readJson(join(folder, 'modules.json'));
  if (!Array.isArray(modules)) return USUAL;
  const named = (name: string) => modules.find((one) => typeof one?.type === 'string' && one.type.endsWith(`.${name}`));
  const pooling: unknown = named('Pooling')?.path;
  const file = join(
    folder,
    typeof pooling === 'string' && /^\w+$/.test(pooling) ? pooling : '1_Pooling',
    'config.json',
  );
  const config = await readJson(file);
  const normalize = named('Normalize') !== undefined;
  if (typeof config !== 'object' || config === null) return { ...USUAL, normalize };
  const fields = new Fields(config as Readonly<Record<string, unknown>>, file);
  const modes = Object.keys(config).filter((name) => name.startsWith('pooling_mode_') && fields.flag(name, false));
  const mode = modes.length === 1 ? MODES[modes[0]!] : undefined;
  if (mode !== undefined) return { mode, normalize };
  const expected = `Expected one of ${Object.keys(MODES).join(', ')}, got ${modes.join(', ') || 'none'}`;
  throw new HqqError('ERR_CHECKPOINT_CONTENT', `${file}: ${expected}.`);
}

const MODES: Readonly<Record<string, Pooling['mode']>> = {
  pooling_mode_cls_token: 'cls',
  pooling_mode_mean_tokens: 'mean',
  pooling_mode_max_tokens: 'max',
};

async function readJson(file: string): Promise<unknown> {
  try {
    return parseJson(await readWhole(file, MAX_BYTES), { file });
  } catch (error) {
    if (error instanceof HqqError && /^(ENOENT|ENOTDIR)$/.test(systemCode(error.cause) ?? '')) return undefined;
    throw error;
  }
}

/** The vector of a text, `[width]`, from what its tokens are, `[rows, width]`. */
export function pool(hidden: Float32Array, width: number, { mode, normalize }: Pooling): Float32Array {
  const rows = mode === 'cls' ? 1 : hidden.length / width;
  const sums = new Float64Array(width).fill(mode === 'max' ? -Infinity : 0);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < width; i++) {
      const value = hidden[row * width + i]!;
      sums[i] = mode === 'max' ? Math.max(sums[i]!, value) : sums[i]! + value / rows;
    }
  }
  const length = normalize ? Math.hypot(...sums) : 1;
  return Float32Array.from(sums, (value) => (length > 0 ? value / length : value));
}
