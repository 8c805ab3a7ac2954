import { packArgs } from '../../compute/arguments.js';
import { bytesOf, narrowBytes } from '../../compute/floats.js';
import { resolveThreads } from '../../compute/run.js';
import type { TensorEntry, TensorSource } from '../../containers/container.js';
import { layerOf } from '../../containers/names.js';
import { readRanges } from '../../containers/ranges.js';
import { bitsOfType } from '../../containers/stored-types.js';
import { atOnce } from '../../files/event-loop.js';
import { type BlockType, blockType } from '../../matrix/block-types.js';
import { DTYPES, type DType } from '../../matrix/dtype.js';
import { allocateWords, formatFor, holdsRows, packedRows } from '../../matrix/format.js';
import { allocating } from '../../messages/allocating.js';
import { quote } from '../../messages/text.js';
import type { LayerLoad, StoredLayer, WorkRun } from '../scheme.js';
import { blocksOf, type RowChunk } from './form.js';
import { decodePointed, POINTED_ZERO, type PointedType, pointedType, splitPointed } from './pointed.js';

/** A matrix that is stored as blocks. */
export interface BlockLayer extends StoredLayer {
  readonly type: BlockType | PointedType;
}

const isPointed = (type: BlockType | PointedType): type is PointedType => 'read' in type;

/** Bits that codes of a type take where they are apart from their blocks. */
const bitsOfCodes = (type: BlockType | PointedType) => (isPointed(type) || type.curved ? 8 : type.nbits);

/** Every matrix of blocks. */
export function findBlocks({ entries }: Pick<TensorSource, 'entries'>): readonly BlockLayer[] {
  return [...entries.values()].flatMap((entry) => {
    const type = blockType(entry.type.name) ?? pointedType(entry.type.name);
    return type === undefined || entry.shape.length !== 2 ? [] : [layerOfEntry(entries, entry, type)];
  });
}

function layerOfEntry(
  entries: ReadonlyMap<string, TensorEntry>,
  entry: TensorEntry,
  type: BlockLayer['type'],
): BlockLayer {
  const name = layerOf(entry.name);
  const [rows, cols] = entry.shape as readonly [number, number];
  const storage = {
    nbits: type.nbits,
    groupSize: type.sub,
    axis: 1,
    packing: type.name,
    bitsPerWeight: bitsOfType(entry.type),
  } as const;
  return {
    ...{ scheme: 'gguf', name, bare: name === entry.name, shape: [rows, cols], stored: 'out-in' },
    ...{ entries: [entry], bias: name === entry.name ? undefined : entries.get(`${name}.bias`), storage, type },
  };
}

/** The weights of some rows, rounded once to `dtype`. In the slot's memory. */
export async function decodeRows(
  source: TensorSource,
  { entries: [entry], type }: BlockLayer,
  chunk: RowChunk,
  dtype: DType,
  { slot, signal, threads, compute }: WorkRun,
): Promise<Uint8Array> {
  const range = blocksOf(chunk, type);
  const blocks = slot.take('blocks', Uint8Array, range.count * type.bytes);
  await readRanges(source, entry, [range], type.bytes, blocks, slot, signal);
  const out = slot.take('decoded', Float32Array, chunk.count);
  if (isPointed(type)) await decodePointed(type, blocks, out);
  else await compute('decodeBlocks', { type: type.id, blocks, out, threads });
  if (dtype === 'float32') return bytesOf(out);
  const bytes = slot.take('weights', Uint8Array, chunk.count * DTYPES[dtype].bytes);
  narrowBytes(out, dtype, bytes);
  return bytes;
}

/** The exact numbers of a layer; undefined where those that `loadBlocks` gives are exact. */
export function loadNumbers({ name, entries: [entry], type }: BlockLayer, out: Float32Array, threads: number) {
  if (isPointed(type)) return undefined;
  const blocks = allocating(`the blocks of ${quote(name)}`, () => new Uint8Array(entry.end - entry.begin));
  return {
    reads: [{ entry, into: blocks }],
    steps: [{ operation: 'decodeBlocks', args: { type: type.id, blocks, out, threads } } as const],
  };
}

/** A layer as codes, scales and zeros: `(code - zero) * scale` is its weight but for rounding. */
export function loadBlocks({ name, shape, entries: [entry], type }: BlockLayer): LayerLoad {
  const [rows, cols] = shape;
  const groups = (rows * cols) / type.sub;
  const nbits = bitsOfCodes(type);
  const narrow = formatFor(nbits);
  const format = holdsRows(narrow, groups) ? narrow : formatFor(8);
  const threads = resolveThreads();
  const made = allocating(`the codes of ${quote(name)}`, () => ({
    blocks: new Uint8Array(entry.end - entry.begin),
    codes: new Uint8Array(rows * cols),
    scale: new Float32Array(groups),
    zero: new Float32Array(groups).fill(isPointed(type) ? POINTED_ZERO : 0),
    packed: allocateWords(format, packedRows(format, groups) * type.sub),
  }));
  const { blocks, codes, scale, zero, packed } = made;
  const pack = {
    operation: 'pack',
    args: packArgs({ rows: groups, cols: type.sub, format, codes, packed, threads }),
  } as const;
  const split = () => {
    if (isPointed(type)) return { prepare: () => atOnce(splitPointed(type, blocks, codes, scale)), steps: [pack] };
    return {
      steps: [
        { operation: 'splitBlocks', args: { type: type.id, blocks, codes, scale, zero, threads } } as const,
        pack,
      ],
    };
  };
  return {
    reads: [{ entry, into: blocks }],
    ...split(),
    finish: () => ({ nbits, groupSize: type.sub, axis: 1, shape, packing: format.packing, packed, scale, zero }),
  };
}
