import { HqqError } from '../messages/errors.js';
import type { QuantConfig, ResolvedQuantConfig } from './config.js';
import { formatFor, formatNamed, holdsRows, type PackFormat } from './format.js';
import { type Geometry, geometryOf, nearestDivisors } from './geometry.js';
import { resolveQuantConfig } from './options.js';

/** How one matrix is quantized: its options with `groupSize` as a number, and what follows from them. */
interface LayerForm {
  readonly config: ResolvedQuantConfig & { readonly groupSize: number };
  readonly format: PackFormat;
  readonly geometry: Geometry;
  /** What was taken in place of a default that does not fit, and why; absent where everything fits. */
  readonly adapted?: string;
}

/** Why a matrix cannot be quantized as it was asked for. */
export interface Misfit {
  /** Why: "groups of 64 do not divide 5 x 100 weights". */
  readonly reason: string;
  /** The size that was asked for. */
  readonly asked: number;
  /** The nearest sizes that divide the matrix. */
  readonly sizes: readonly number[];
}

/** Smallest group that a row is cut into unasked: scales and zeros then take as much as 4-bit codes. */
const SMALLEST_GROUP = 8;

/**
 * The form of a matrix: what was asked for is kept, or is a `Misfit`; a default that does not fit gives way. `config` holds
 * what was asked for and nothing else: an option that is there was asked for, even with the value of its default.
 *
 * A form fits when its groups divide the matrix and the rows of the grouped matrix fill their words (save at 3 bits, where
 * readers can cut off what is missing). Where the defaults do not fit, in this order:
 *
 * 1. another group size, if none was asked for: see `sizesFor`;
 * 2. the same on axis 0, if no axis was asked for;
 * 3. the codes a byte each, which holds any number of rows. It is no option: `nbits`, the number of levels, stays.
 */
export function formOf(shape: readonly [number, number], config: QuantConfig): LayerForm | Misfit {
  const resolved = resolveQuantConfig(config);
  const { granularity, nbits } = resolved;
  const isWhole = granularity === 'tensor';
  // A row of all codes would leave words to one code each.
  const axis = isWhole && config.axis === undefined ? 0 : resolved.axis;
  const wanted = (side: 0 | 1) => (isWhole ? shape[0] * shape[1] : (resolved.groupSize ?? shape[side]));
  const asked = wanted(axis);
  const format = formatFor(nbits);
  const straight = attempt(shape, resolved, asked, axis, format);
  if (straight) return straight;

  const sizes = (side: 0 | 1) =>
    config.groupSize === undefined && granularity === 'group' ? sizesFor(shape, side, asked) : [wanted(side)];
  const sides: readonly (0 | 1)[] = config.axis === undefined ? [axis, axis === 1 ? 0 : 1] : [axis];
  const ways: readonly (readonly [size: number, side: 0 | 1, format: PackFormat])[] = [
    ...sides.flatMap((side) => sizes(side).map((size) => [size, side, format] as const)),
    ...sizes(axis).map((size) => [size, axis, formatNamed('8bit_u8')!] as const),
  ];
  for (const [size, side, layout] of ways) {
    const form = attempt(shape, resolved, size, side, layout);
    if (!form) continue;
    const changes = [
      ...(size === wanted(side) ? [] : [`group size ${size}`]),
      ...(side === axis ? [] : [`axis ${side}`]),
      ...(layout === format ? [] : [`stored as ${layout.packing}`]),
    ];
    return { ...form, adapted: `${changes.join(', ')}: ${reasonOf(shape, asked, axis, format)}` };
  }
  return {
    reason: reasonOf(shape, asked, axis, format),
    asked,
    sizes: nearestDivisors(shape[0] * shape[1], asked),
  };
}

/**
 * `formOf`, for one matrix.
 *
 * @throws {HqqError} `ERR_GROUP_SIZE` for a misfit, `ERR_INVALID_OPTION`
 */
export function requireForm(shape: readonly [number, number], config: QuantConfig): LayerForm {
  const form = formOf(shape, config);
  if ('geometry' in form) return form;
  const { asked, sizes } = form;
  throw new HqqError(
    'ERR_GROUP_SIZE',
    `Expected groupSize to divide ${shape[0]} x ${shape[1]} weights, got ${asked}. Nearest sizes that do: ` +
      `${sizes.join(', ')}. Without groupSize, one that fits is taken.`,
  );
}

function attempt(
  shape: readonly [number, number],
  config: ResolvedQuantConfig,
  groupSize: number,
  axis: 0 | 1,
  format: PackFormat,
): LayerForm | undefined {
  if ((shape[0] * shape[1]) % groupSize !== 0) return undefined;
  const geometry = geometryOf(shape, { groupSize, axis });
  return holdsRows(format, geometry.rows) ? { config: { ...config, groupSize, axis }, format, geometry } : undefined;
}

/**
 * Group sizes for a matrix that `usual` does not fit, the best first: its halves; other parts of a row (or column), which fast
 * kernels need; parts of the matrix; a whole row (or column); the whole matrix. Parts have `SMALLEST_GROUP` to `usual` weights.
 */
function sizesFor(shape: readonly [number, number], axis: 0 | 1, usual: number): readonly number[] {
  const descending = Array.from({ length: usual - SMALLEST_GROUP + 1 }, (_, i) => usual - i);
  const halves = descending.filter((size) => Number.isInteger(Math.log2(usual / size)));
  const partsOf = (count: number) => descending.filter((size) => count % size === 0);
  const [side, count] = [shape[axis], shape[0] * shape[1]];
  return [...new Set([...halves, ...partsOf(side), ...partsOf(count), ...(side > 1 ? [side] : []), count])];
}

function reasonOf(shape: readonly [number, number], size: number, axis: 0 | 1, format: PackFormat): string {
  const count = shape[0] * shape[1];
  if (count % size !== 0) return `groups of ${size} do not divide ${shape[0]} x ${shape[1]} weights`;
  const rows =
    axis === 1 ? `${count / size} ${count === size ? 'group' : 'groups'} of ${size}` : `groups of ${size} on axis 0`;
  return `${rows} ${axis === 1 && count === size ? 'does' : 'do'} not pack into ${format.packing}`;
}
