/** Which numbers a schema takes. */
export interface NumberKind {
  readonly kind: 'number';
  readonly integer: boolean;
  readonly min: number;
  readonly max: number;
}

/** Digits that a number may have before and after its point: more say nothing, and a model would go on with them for ever. */
export const NUMBER = { whole: 20, fraction: 16 } as const;

const BEGUN = /^-?(?:(?:0|[1-9]\d{0,19})(?:\.\d{0,16}|(?:\.\d{1,16})?[eE](?:[+-]?\d{0,3}))?)?$/;
const WHOLE = /^-?(?:0|[1-9]\d{0,19})(?:\.\d{1,16})?(?:[eE][+-]?\d{1,3})?$/;

/** Whether a number of that kind may begin so. */
export function mayBegin(text: string, kind: NumberKind): boolean {
  if (!BEGUN.test(text)) return false;
  if (kind.integer && /[.eE]/.test(text)) return false;
  if (kind.min === -Infinity && kind.max === Infinity) return true;
  return !/[eE]/.test(text) && mayFit(text, kind);
}

/** Whether it is a whole number of that kind. */
export function isWhole(text: string, { min, max }: NumberKind): boolean {
  return WHOLE.test(text) && Number(text) >= min && Number(text) <= max;
}

/** Whether some number that begins so lies within the bounds. */
function mayFit(text: string, { min, max, integer }: NumberKind): boolean {
  const negative = text.startsWith('-');
  const [least, most] = negative ? [-max, -min] : [min, max];
  const digits = negative ? text.slice(1) : text;
  if (digits === '') return most >= 0;
  const [whole, fraction] = digits.split('.') as [string, string | undefined];
  const value = Number(digits);
  if (fraction !== undefined) return most >= value && (least <= value || least < value + 10 ** -fraction.length);
  const size = (zeros: number) => 10 ** zeros;
  const longest = whole === '0' ? 0 : NUMBER.whole - whole.length;
  for (let zeros = 0; zeros <= longest; zeros++) {
    const from = value * size(zeros);
    const past = (value + 1) * size(zeros);
    if (most >= from && (integer ? least <= past - 1 : least < past)) return true;
  }
  return false;
}
