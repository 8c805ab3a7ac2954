import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';

/** A tensor as a safetensors file holds it. Read by the tests' own few lines, not by the reader under test. */
export interface RawTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array<ArrayBuffer>;
}

const folder = fileURLToPath(new URL('../golden/', import.meta.url));

export function goldenBytes(file: string): Buffer {
  return gunzipSync(readFileSync(`${folder}${file}.gz`));
}

export function parseTensors(buffer: Buffer): Map<string, RawTensor> {
  const length = Number(buffer.readBigUInt64LE(0));
  const header = JSON.parse(buffer.subarray(8, 8 + length).toString()) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors = new Map<string, RawTensor>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const [begin, end] = entry.data_offsets.map((offset) => 8 + length + offset);
    tensors.set(name, { dtype: entry.dtype, shape: entry.shape, bytes: Uint8Array.from(buffer.subarray(begin, end)) });
  }
  return tensors;
}

const cache = new Map<string, Map<string, RawTensor>>();

export function goldenTensors(file: string): Map<string, RawTensor> {
  let tensors = cache.get(file);
  if (!tensors) cache.set(file, (tensors = parseTensors(goldenBytes(file))));
  return tensors;
}

export interface GoldenCase {
  readonly name: string;
  readonly file: string;
  readonly input: string;
  readonly nbits: number;
  readonly group_size: number | null;
  readonly axis: 0 | 1;
  readonly optimize: boolean;
  readonly round_zero: boolean;
  readonly lp_norm: number;
  readonly beta: number;
  readonly kappa: number;
  readonly max_iters: number;
  readonly packing: string;
  readonly final_mean_abs_err: number;
  readonly tensors: readonly string[];
}

interface LowPrecisionCase {
  readonly name: string;
  readonly input: string;
  readonly nbits: number;
  readonly group_size: number;
  readonly axis: 0 | 1;
  readonly compute_dtype: 'f16' | 'bf16';
}

export interface GoldenIndex {
  readonly inputs: Record<string, { file: string; tensor: string; dtype: string; shape: [number, number] }>;
  readonly cases: readonly GoldenCase[];
  readonly bitpack: {
    file: string;
    cases: readonly { name: string; packing: string; rows: number; cols: number; packed_shape: number[] }[];
  };
  readonly lowprec: { file: string; cases: readonly LowPrecisionCase[] };
  readonly serialization: {
    readonly layers: readonly {
      layer: string;
      nbits: number;
      group_size: number | null;
      axis: 0 | 1;
      compute_dtype: string;
      bias: boolean;
    }[];
  };
}

export const golden = JSON.parse(goldenBytes('golden.json').toString()) as GoldenIndex;

export const floats = (tensor: RawTensor): Float32Array<ArrayBuffer> => new Float32Array(tensor.bytes.buffer);
export const halves = (tensor: RawTensor): Uint16Array<ArrayBuffer> => new Uint16Array(tensor.bytes.buffer);
