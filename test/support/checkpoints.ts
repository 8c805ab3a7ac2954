import * as fs from 'node:fs';
import { join } from 'node:path';
import { bfloatOfFloat, floatOfBfloat, floatOfHalf, halfOfFloat } from '../../lib/backend/js/lanes.js';
import { storedFloat } from '../../lib/containers/stored-types.js';
import type { DType } from '../../lib/matrix/dtype.js';
import { parseTensors, type RawTensor } from './golden.js';
import { scratchFolder } from './scratch.js';

// Small checkpoints, written by the tests' own few lines and not by the code under test.

const SCRATCH = scratchFolder('checkpoint');

let counter = 0;

/** A path that nothing has yet, in a folder of its own. */
export function freshPath(name = 'out'): string {
  const folder = join(SCRATCH, String(counter++));
  fs.mkdirSync(folder, { recursive: true });
  return join(folder, name);
}

export interface SourceTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export type Source = Readonly<Record<string, SourceTensor>>;

/** Numbers as a tensor of `dtype`. */
export function tensorOf(values: ArrayLike<number>, shape: readonly number[], dtype: DType = 'float32'): SourceTensor {
  const narrow = dtype === 'float16' ? halfOfFloat : bfloatOfFloat;
  const array = dtype === 'float32' ? Float32Array.from(values) : new Uint16Array(values.length);
  if (dtype !== 'float32') for (let i = 0; i < array.length; i++) array[i] = narrow(values[i]!);
  return { dtype: storedFloat(dtype).name, shape, bytes: new Uint8Array(array.buffer) };
}

/** Roughly normal weights that a seed repeats. */
export function randomWeights(count: number, seed: number, size = 0.05): Float32Array {
  let state = seed >>> 0;
  const uniform = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  const weights = new Float32Array(count);
  for (let i = 0; i < count; i++) weights[i] = (uniform() + uniform() + uniform() + uniform() - 2) * 1.7 * size;
  return weights;
}

export function randomTensor(shape: readonly number[], seed: number, dtype: DType = 'float32'): SourceTensor {
  return tensorOf(
    randomWeights(
      shape.reduce((a, b) => a * b, 1),
      seed,
    ),
    shape,
    dtype,
  );
}

/** A safetensors file. */
export function encode(tensors: Source, metadata: Readonly<Record<string, string>> = { format: 'pt' }): Buffer {
  let offset = 0;
  const header: Record<string, unknown> = { __metadata__: metadata };
  for (const [name, { dtype, shape, bytes }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [offset, (offset += bytes.byteLength)] };
  }
  let text = JSON.stringify(header);
  text += ' '.repeat((8 - (Buffer.byteLength(text) % 8)) % 8);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(Buffer.byteLength(text)));
  return Buffer.concat([length, Buffer.from(text), ...Object.values(tensors).map(({ bytes }) => bytes)]);
}

/** A model of one file. */
export function modelFile(tensors: Source): string {
  const path = freshPath('in.safetensors');
  fs.writeFileSync(path, encode(tensors));
  return path;
}

export const CONFIG = `{
  "architectures": ["LlamaForCausalLM"],
  "model_type": "llama",
  "rms_norm_eps": 1e-05,
  "rope_max": Infinity,
  "note": "a } in \\"text\\", {[",
  "tie_word_embeddings": false
}
`;

export interface ModelFiles {
  readonly config?: string | undefined;
  readonly files?: Readonly<Record<string, string | Uint8Array>>;
}

/** A model folder; several shards get an index. */
export function modelFolder(shards: readonly Source[], { config = CONFIG, files = {} }: ModelFiles = {}): string {
  const folder = freshPath('model');
  fs.mkdirSync(folder);
  if (config !== '') fs.writeFileSync(join(folder, 'config.json'), config);
  const digits = (n: number) => String(n).padStart(5, '0');
  const nameOf = (i: number) => `model-${digits(i + 1)}-of-${digits(shards.length)}.safetensors`;
  const names = shards.map((_, i) => (shards.length === 1 ? 'model.safetensors' : nameOf(i)));
  shards.forEach((shard, i) => fs.writeFileSync(join(folder, names[i]!), encode(shard)));
  if (shards.length > 1) {
    const map = shards.flatMap((shard, i) => Object.keys(shard).map((tensor) => [tensor, names[i]!]));
    const index = { metadata: { total_size: 1 }, weight_map: Object.fromEntries(map) };
    fs.writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify(index));
  }
  for (const [name, data] of Object.entries(files)) {
    fs.mkdirSync(join(folder, name, '..'), { recursive: true });
    fs.writeFileSync(join(folder, name), data);
  }
  return folder;
}

/** A small Llama: two layers, `lm_head`, odd and even sizes. */
export function llama(dtype: DType = 'float32', seed = 1): Source {
  const tensors: Record<string, SourceTensor> = {
    'model.embed_tokens.weight': randomTensor([40, 64], seed, dtype),
    'model.norm.weight': randomTensor([64], seed + 1, dtype),
    'lm_head.weight': randomTensor([40, 64], seed + 2, dtype),
  };
  for (const layer of [0, 1]) {
    const prefix = `model.layers.${layer}`;
    const add = (name: string, shape: readonly number[]) => {
      tensors[`${prefix}.${name}`] = randomTensor(shape, seed + Object.keys(tensors).length * 7, dtype);
    };
    add('self_attn.q_proj.weight', [64, 64]);
    add('self_attn.q_proj.bias', [64]);
    add('self_attn.k_proj.weight', [32, 64]);
    add('mlp.gate_proj.weight', [128, 64]);
    add('mlp.down_proj.weight', [64, 128]);
    add('input_layernorm.weight', [64]);
  }
  return tensors;
}

/** All tensors of a file or folder, read by the tests' own lines. */
export function readBack(path: string): Map<string, RawTensor> {
  const files = fs.statSync(path).isDirectory()
    ? fs
        .readdirSync(path)
        .filter((name) => name.endsWith('.safetensors'))
        .map((name) => join(path, name))
    : [path];
  return new Map(files.flatMap((file) => [...parseTensors(fs.readFileSync(file))]));
}

/** Everything in a folder (or a file), to be compared as a whole. */
export function snapshot(path: string): Record<string, string> {
  if (!fs.statSync(path).isDirectory()) return { '': fs.readFileSync(path).toString('hex') };
  const entries = fs.readdirSync(path, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = entries.map((entry) => join(entry.parentPath ?? entry.path, entry.name));
  return Object.fromEntries(
    paths.sort().map((file) => [file.slice(path.length + 1), fs.readFileSync(file).toString('hex')]),
  );
}

/** A tensor's numbers. */
export function numbersOf({ dtype, bytes }: SourceTensor): Float32Array {
  const copy = Uint8Array.from(bytes).buffer;
  if (dtype === 'F32') return new Float32Array(copy);
  return Float32Array.from(new Uint16Array(copy), dtype === 'F16' ? floatOfHalf : floatOfBfloat);
}

/** The error that `action` fails with; fails if it does not. */
export async function failure(action: () => unknown): Promise<Error & { code?: string }> {
  try {
    await action();
  } catch (error) {
    return error as Error;
  }
  throw new Error('Expected a failure, got none.');
}

/** What lies beside `path`: nothing half-written may stay there. */
export function beside(path: string): string[] {
  return fs.readdirSync(join(path, '..'));
}
