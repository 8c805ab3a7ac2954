/** Numbers for people: three significant digits, one space, one unit. JSON output never passes through here. */

const SIZES = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'] as const;
const COUNTS = ['', 'k', 'M', 'G', 'T', 'P'] as const;

/** `12345` as `12,345`, the same in every locale. */
export function formatCount(count: number): string {
  return Math.round(count)
    .toString()
    .replaceAll(/\B(?=(\d{3})+$)/g, ',');
}

/** Three significant digits without an exponent where people read one easily. */
export function formatNumber(value: number): string {
  const size = Math.abs(value);
  if (!Number.isFinite(value) || size === 0) return String(value);
  if (size >= 1e15 || size < 1e-4) return value.toExponential(2);
  if (size >= 1000) return formatCount(value);
  return value.toPrecision(3); // not Number(): 4.50 keeps its zero, so that columns align
}

function scaled(value: number, units: readonly string[]): readonly [number, string] {
  let power = 0;
  // 999.5 and above would be printed as "1,000".
  for (; Math.abs(value) >= 999.5 && power < units.length - 1; power++) value /= 1000;
  return [value, units[power]!];
}

/** Bytes in powers of 1000, as disks are sold: `1.23 GB`. */
export function formatBytes(bytes: number): string {
  if (bytes < 999.5) return `${Math.round(bytes)} B`;
  const [value, unit] = scaled(bytes, SIZES);
  return `${value.toPrecision(3)} ${unit}`;
}

/** A large count: `1.10 G`, to be followed by what is counted. */
export function formatLarge(count: number): string {
  if (count < 999.5) return String(Math.round(count));
  const [value, unit] = scaled(count, COUNTS);
  return `${value.toPrecision(3)} ${unit}`;
}

/** Weights, or another unit, per second: `612 M weights/s`. */
export function formatRate(count: number, seconds: number, unit = 'weights'): string {
  return seconds > 0 ? `${formatLarge(count / seconds)} ${unit}/s` : '-';
}

/** A duration that was measured: `1.23 ms`, `4.56 s`, `3 min 12 s`. */
export function formatSeconds(seconds: number): string {
  if (seconds < 0.9995e-3) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 0.9995) return `${(seconds * 1e3).toPrecision(3)} ms`;
  if (seconds < 59.95) return `${seconds.toPrecision(3)} s`;
  return formatWait(seconds);
}

/** A duration that is guessed: whole seconds, never more than two units. */
export function formatWait(seconds: number): string {
  const whole = Math.max(0, Math.ceil(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Math.round(whole / 60);
  return `${formatCount(Math.floor(minutes / 60))} h ${minutes % 60} min`;
}

/** A share: `8.53 %`. */
export function formatPercent(share: number): string {
  return `${formatNumber(share * 100)} %`;
}

/** `1 tensor`, `2 tensors`. */
export function plural(count: number, noun: string): string {
  return `${formatCount(count)} ${noun}${count === 1 ? '' : 's'}`;
}

/** `4096 x 4096`; a scalar has no sizes and says so. */
export function formatShape(shape: readonly number[]): string {
  return shape.length === 0 ? 'scalar' : shape.join(' x ');
}
