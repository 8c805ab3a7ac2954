import type { DType } from '../matrix/dtype.js';

/** How the elements of a tensor lie in a file: in blocks of so many elements and bytes. Plain data, which travels as JSON. */
export interface StoredType {
  /** As containers and reports spell it: `BF16`, `I64`. */
  readonly name: string;
  /** Elements of a block: 1 but for types that pack several into bytes. */
  readonly blockElements: number;
  readonly blockBytes: number;
  /** The type of numbers that can be computed with; absent for all others. */
  readonly float?: DType;
  /** The type of numbers that its elements are rounded to, once, where they are to be computed with; absent for all others. */
  readonly rounded?: 'float32';
}

const row = (name: string, blockBytes: number, float?: DType): StoredType =>
  Object.freeze({ name, blockElements: 1, blockBytes, ...(float === undefined ? {} : { float }) });
const packed = (name: string, blockElements: number, blockBytes: number): StoredType =>
  Object.freeze({ name, blockElements, blockBytes });

/** Every type that a container can hold, once, by name. Adding one: a row here, its name in the containers that have it. */
export const STORED_TYPES: ReadonlyMap<string, StoredType> = new Map(
  [
    row('C64', 8),
    Object.freeze({ ...row('F64', 8), rounded: 'float32' } as const),
    row('I64', 8),
    row('U64', 8),
    row('F32', 4, 'float32'),
    row('I32', 4),
    row('U32', 4),
    row('F16', 2, 'float16'),
    row('BF16', 2, 'bfloat16'),
    row('I16', 2),
    row('U16', 2),
    row('F8_E4M3', 1),
    row('F8_E5M2', 1),
    row('F8_E8M0', 1),
    row('F8_E4M3FNUZ', 1),
    row('F8_E5M2FNUZ', 1),
    row('I8', 1),
    row('U8', 1),
    row('BOOL', 1),
    packed('F6_E2M3', 4, 3),
    packed('F6_E3M2', 4, 3),
    packed('F4', 2, 1),
    // ggml's, as GGUF files have them: blocks of codes with their scales
    packed('Q4_0', 32, 18),
    packed('Q4_1', 32, 20),
    packed('Q5_0', 32, 22),
    packed('Q5_1', 32, 24),
    packed('Q8_0', 32, 34),
    packed('Q8_1', 32, 36),
    packed('Q2_K', 256, 84),
    packed('Q3_K', 256, 110),
    packed('Q4_K', 256, 144),
    packed('Q5_K', 256, 176),
    packed('Q6_K', 256, 210),
    packed('Q8_K', 256, 292),
    packed('IQ1_S', 256, 50),
    packed('IQ1_M', 256, 56),
    packed('IQ2_XXS', 256, 66),
    packed('IQ2_XS', 256, 74),
    packed('IQ2_S', 256, 82),
    packed('IQ3_XXS', 256, 98),
    packed('IQ3_S', 256, 110),
    packed('IQ4_NL', 32, 18),
    packed('IQ4_XS', 256, 136),
    packed('TQ1_0', 256, 54),
    packed('TQ2_0', 256, 66),
    packed('MXFP4', 32, 17),
    packed('NVFP4', 64, 36),
    packed('Q1_0', 128, 18),
    packed('Q2_0', 64, 18),
  ].map((type) => [type.name, type]),
);

/** The type of the table that is called `name`. */
export function storedType(name: string): StoredType {
  const type = STORED_TYPES.get(name);
  if (type === undefined) throw new RangeError(`Expected the name of a stored type, got ${name}.`);
  return type;
}

/** How numbers of `dtype` are stored. */
export function storedFloat(dtype: DType): StoredType {
  return FLOATS[dtype];
}
const FLOATS: { readonly [K in DType]: StoredType } = {
  float32: storedType('F32'),
  float16: storedType('F16'),
  bfloat16: storedType('BF16'),
};

/** The type of numbers that elements are computed with: their own, or what they are rounded to; undefined for what is none. */
export function numbersOf({ float, rounded }: StoredType): DType | undefined {
  return float ?? rounded;
}

/** Bits of an element. */
export function bitsOfType({ blockElements, blockBytes }: StoredType): number {
  return (8 * blockBytes) / blockElements;
}
