import { type StoredType, storedType } from '../stored-types.js';

// The types that ggml can store, by their numbers in a file. Numbers that are not here were given up by ggml (4, 5, 31 to 33, 36 to 38),
// or came after this table.

const IDS: readonly (readonly [id: number, name: string])[] = [
  [0, 'F32'],
  [1, 'F16'],
  [2, 'Q4_0'],
  [3, 'Q4_1'],
  [6, 'Q5_0'],
  [7, 'Q5_1'],
  [8, 'Q8_0'],
  [9, 'Q8_1'],
  [10, 'Q2_K'],
  [11, 'Q3_K'],
  [12, 'Q4_K'],
  [13, 'Q5_K'],
  [14, 'Q6_K'],
  [15, 'Q8_K'],
  [16, 'IQ2_XXS'],
  [17, 'IQ2_XS'],
  [18, 'IQ3_XXS'],
  [19, 'IQ1_S'],
  [20, 'IQ4_NL'],
  [21, 'IQ3_S'],
  [22, 'IQ2_S'],
  [23, 'IQ4_XS'],
  [24, 'I8'],
  [25, 'I16'],
  [26, 'I32'],
  [27, 'I64'],
  [28, 'F64'],
  [29, 'IQ1_M'],
  [30, 'BF16'],
  [34, 'TQ1_0'],
  [35, 'TQ2_0'],
  [39, 'MXFP4'],
  [40, 'NVFP4'],
  [41, 'Q1_0'],
  [42, 'Q2_0'],
];

const TYPES: ReadonlyMap<number, StoredType> = new Map(IDS.map(([id, name]) => [id, storedType(name)]));
const NUMBERS: ReadonlyMap<string, number> = new Map(IDS.map(([id, name]) => [name, id]));

/** The type of this number; undefined for one that is not known. */
export function typeOfId(id: number): StoredType | undefined {
  return TYPES.get(id);
}

/** ggml's number of a type; undefined where ggml has no such type. */
export function idOfType({ name }: StoredType): number | undefined {
  return NUMBERS.get(name);
}
