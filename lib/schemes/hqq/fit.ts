import type { ResolvedQuantConfig } from '../../matrix/config.js';
import { formatFor, formatNamed, holdsRows, type PackFormat } from '../../matrix/format.js';
import { type Geometry, geometryOf } from '../../matrix/geometry.js';

/** How one layer is quantized: its options with `groupSize` as a number, and what follows from them. */
export interface LayerForm {
  readonly config: ResolvedQuantConfig & { readonly groupSize: number };
  readonly format: PackFormat;
  readonly geometry: Geometry;
  /** Why it is not what was asked for, if it is not. */
  readonly adapted?: string;
}

/** Smallest group that a layer is cut into unasked: scales and zeros then take as much as 4-bit codes. */
const SMALLEST_GROUP = 8;

/**
 * The form of a layer. Readers cannot cut off padding, so the rows of the grouped matrix must fill their words (save at 3
 * bits, where readers can). Where what was asked for does not pack, in this order: a smaller group, axis 0, the same codes a
 * byte each. Undefined with the reason when nothing fits.
 */
export function formOf(
  shape: readonly [number, number],
  config: ResolvedQuantConfig,
): LayerForm | { readonly reason: string } {
  const { axis, nbits } = config;
  const asked = config.groupSize ?? (axis === 1 ? shape[1] : shape[0]);
  const format = formatFor(nbits);
  const straight = attempt(shape, config, asked, axis, format);
  if (straight) return straight;

  const why = reasonOf(shape, asked, axis, format);
  const smaller = smallerSizes(asked);
  const codes = formatNamed('8bit_u8')!;
  const ways: readonly (readonly [size: number, axis: 0 | 1, format: PackFormat])[] = [
    ...smaller.map((size) => [size, axis, format] as const),
    ...(axis === 1 ? [asked, ...smaller].map((size) => [size, 0, format] as const) : []),
    ...[asked, ...smaller].map((size) => [size, axis, codes] as const),
  ];
  for (const [size, side, layout] of ways) {
    const form = attempt(shape, config, size, side, layout);
    if (!form) continue;
    const changes = [
      ...(size === asked ? [] : [`group size ${size}`]),
      ...(side === axis ? [] : [`axis ${side}`]),
      ...(layout === format ? [] : [`stored as ${layout.packing}`]),
    ];
    return { ...form, adapted: `${changes.join(', ')}: ${why}` };
  }
  return { reason: `does not pack: ${why}` };
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

/** Halves of the size, and powers of two below it: largest first. */
function smallerSizes(size: number): number[] {
  const sizes = new Set<number>();
  for (let half = size / 2; half >= SMALLEST_GROUP && Number.isInteger(half); half /= 2) sizes.add(half);
  for (let power = 2 ** Math.ceil(Math.log2(size) - 1); power >= SMALLEST_GROUP; power /= 2)
    if (power <= 64) sizes.add(power);
  return [...sizes].sort((a, b) => b - a);
}

function reasonOf(shape: readonly [number, number], size: number, axis: 0 | 1, format: PackFormat): string {
  const count = shape[0] * shape[1];
  if (count % size !== 0) return `groups of ${size} do not divide ${shape[0]} x ${shape[1]} weights`;
  const rows =
    axis === 1 ? `${count / size} ${count === size ? 'group' : 'groups'} of ${size}` : `groups of ${size} on axis 0`;
  return `${rows} ${axis === 1 && count === size ? 'does' : 'do'} not pack into ${format.packing}`;
}
