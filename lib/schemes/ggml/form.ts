import type { LinearSite, TensorSpec } from '../../containers/container.js';
import type { Grid } from '../../containers/grid.js';
import { pieces, type Range } from '../../containers/ranges.js';
import { storedType } from '../../containers/stored-types.js';
import { BLOCK_TYPES, type BlockType } from '../../matrix/block-types.js';
import type { QuantConfig } from '../../matrix/config.js';
import { resolveQuantConfig } from '../../matrix/options.js';
import { HqqError } from '../../messages/errors.js';
import { quote } from '../../messages/text.js';
import { CHUNK_WEIGHTS } from '../chunks.js';
import type { Chunk, LayerForm, LayerOptions, Stays } from '../scheme.js';
import { typeOf } from './recipes.js';

/** A matrix as blocks of one type. Plain data. */
export interface BlockForm extends LayerForm {
  /** Name of the block type. */
  readonly type: string;
  readonly shape: readonly [number, number];
  /** What was asked for: a type, or a recipe. */
  readonly asked: string;
}

/** Some rows of a matrix. */
export interface RowChunk extends Chunk {
  readonly rows: Range;
  readonly cols: number;
}

/** Rows that are encoded and decoded together. */
export function* rowChunks([rows, cols]: readonly [number, number]): Generator<RowChunk> {
  for (const range of pieces(rows, Math.max(1, Math.floor(CHUNK_WEIGHTS / cols)))) {
    const count = range.count * cols;
    yield { rows: range, cols, weights: [{ at: range.at * cols, count }], count };
  }
}

/** The blocks of rows, in a tensor of blocks. */
export function blocksOf({ rows, cols }: RowChunk, { weights }: Pick<BlockType, 'weights'>): Range {
  const perRow = cols / weights;
  return { at: rows.at * perRow, count: rows.count * perRow };
}

/** The type that so many bits are, where no type is asked for. */
const TYPE_OF_BITS: Readonly<Record<string, string>> = {
  8: 'q8_0',
  6: 'q6_k',
  5: 'q5_k',
  4: 'q4_k',
  3: 'q3_k',
  2: 'q2_k',
};

/** Options that say what blocks say themselves. */
const FIXED = [
  'groupSize',
  'axis',
  'granularity',
  'zeroPoint',
  'scaleDtype',
  'metaBits',
  'prune',
  'roundZero',
  'referenceGuards',
] as const;

/** Options of solvers for matrices. Blocks are fitted by a search of their own, which reads none of them. */
const UNREAD = ['lpNorm', 'beta', 'lambda', 'rho', 'kappa', 'iterations'] as const;

/** What cannot be had of blocks is refused. */
function checkAsked(config: QuantConfig): void {
  const given = FIXED.find((name) => config[name] !== undefined);
  if (given !== undefined) {
    const message = `Expected no ${given} for GGUF, whose types have groups, scales and zeros of their own, got ${String(config[given])}`;
    throw new HqqError('ERR_INVALID_OPTION', `${message}. Choose a type (--type): q4_k, q8_0.`);
  }
  const { solver } = config;
  if (solver !== undefined && solver !== 'joint' && solver !== 'minmax')
    throw new HqqError('ERR_INVALID_OPTION', `Expected solver to be joint or minmax for GGUF, got ${solver}.`);
  const unread = UNREAD.find((name) => config[name] !== undefined);
  if (unread !== undefined) {
    const message = `Expected no ${unread} for GGUF, whose blocks are fitted by a search that does not read it`;
    throw new HqqError('ERR_INVALID_OPTION', `${message}, got ${String(config[unread])}. Leave it out.`);
  }
}

/** The types of blocks that hold any code of so many bits, with a scale and a minimum. */
const TYPE_OF_KEPT: Readonly<Record<number, 'Q4_1' | 'Q5_1'>> = { 4: 'Q4_1', 5: 'Q5_1' };

/** Weights of their blocks. */
const KEPT_WEIGHTS = 32;

/** What to do with layers that have no such codes. */
export const KEPT_ADVICE =
  'Fit all layers anew with a type and requantize (--type q8_0 --requantize), leave it in floats (exclude, --exclude), or begin with the float original.';

/** The form of a layer whose codes are kept. @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for codes that no block holds. */
function keptForm({ weight, shape }: LinearSite, { nbits, groupSize }: Pick<Grid, 'nbits' | 'groupSize'>): BlockForm {
  const type = TYPE_OF_KEPT[nbits];
  if (type === undefined || groupSize === 0 || groupSize % KEPT_WEIGHTS !== 0) {
    const groups = groupSize === 0 ? 'groups that are no parts of rows' : `groups of ${groupSize}`;
    const message = `Expected layers of 4 or 5 bits in groups of a multiple of ${KEPT_WEIGHTS} along the input, whose codes Q4_1 and Q5_1 hold`;
    throw new HqqError(
      'ERR_CHECKPOINT_CONTENT',
      `${message}, got ${nbits} bits in ${groups} for ${quote(weight.name)}. ${KEPT_ADVICE}`,
    );
  }
  const config = resolveQuantConfig({ nbits: nbits as 4 | 5, groupSize: KEPT_WEIGHTS, axis: 1, solver: 'minmax' });
  return { config: { ...config, groupSize: KEPT_WEIGHTS }, type, shape, asked: type.toLowerCase(), kept: true };
}

/**
 * The form of a matrix. Of a model of codes, where no type is asked for, it keeps those, and what has none stays.
 *
 * @throws {HqqError} `ERR_INVALID_OPTION`; `ERR_CHECKPOINT_CONTENT` for codes that no block holds.
 */
export function formOf(site: LinearSite, { config, type, model }: LayerOptions): BlockForm | Stays {
  checkAsked(config);
  if (model.gridSize !== undefined && type === undefined && config.nbits === undefined) {
    const grid = model.gridSize(site.weight);
    return grid === undefined ? { stays: 'not quantized, as it was' } : keptForm(site, grid);
  }
  // Bits that are asked for of some layers are stronger than the type of all.
  const asked = config.nbits !== undefined ? TYPE_OF_BITS[config.nbits] : (type ?? 'q4_k');
  if (asked === undefined) {
    const message = `Expected nbits to be one of 8, 6, 5, 4, 3, 2 for GGUF, got ${config.nbits}`;
    throw new HqqError('ERR_INVALID_OPTION', `${message}.`);
  }
  const found = typeOf(asked, site, model);
  const { nbits, sub, name } = found;
  const solver = config.solver ?? 'joint';
  const resolved = resolveQuantConfig({ nbits, groupSize: sub, axis: 1, solver });
  return { config: { ...resolved, groupSize: sub }, type: name, shape: site.shape, asked: type ?? asked };
}

export function typeNamed(name: string): BlockType {
  return BLOCK_TYPES.find((type) => type.name === name)!;
}

/** The one tensor that a layer becomes, which is called as its weight is. */
export function specOf(site: LinearSite, form: BlockForm): TensorSpec {
  return { name: site.weight.name, type: storedType(form.type), shape: site.weight.shape };
}
