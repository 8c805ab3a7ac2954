import type { LinearSite, TensorSource } from '../../containers/container.js';
import { BLOCK_TYPES, type BlockType, blockType } from '../../matrix/block-types.js';

// What llama.cpp calls a file's type: one type of blocks, or a mix of several by what a matrix does and where in the model it is.

/** What a type falls back to where rows fill no blocks of 256, as in llama.cpp. */
const FALLBACK: Readonly<Record<string, string>> = {
  Q2_K: 'Q4_0',
  Q3_K: 'Q4_0',
  Q4_K: 'Q5_0',
  Q5_K: 'Q5_1',
  Q6_K: 'Q8_0',
  IQ4_XS: 'IQ4_NL',
};

/** Where a matrix stands: the block of the model it is in, of how many, and how many queries share a head of keys. */
interface Place {
  readonly name: string;
  readonly block: number;
  readonly blocks: number;
  readonly shared: number;
}

/** llama.cpp's choice of layers that get more bits: the first and the last eighth, and every third between. */
const deservesMore = ({ block, blocks }: Place) => {
  const eighth = Math.floor(blocks / 8);
  return block < eighth || block >= Math.floor((7 * blocks) / 8) || (block - eighth) % 3 === 2;
};

interface Recipe {
  /** llama.cpp's number of it, `general.file_type`. */
  readonly id: number;
  readonly base: string;
  /** The type of a matrix that is not of the base type; undefined: of the base type. */
  readonly mix?: (place: Place) => string | undefined;
}

const isDown = ({ name }: Place) => name.endsWith('ffn_down');
const isValue = ({ name }: Place) => name.endsWith('attn_v');
const isFused = ({ name }: Place) => name.endsWith('attn_qkv');
const isOutput = ({ name }: Place) => name.endsWith('attn_output');
/** The head, in Q6_K in every recipe of K types, or the embeddings where the head is one matrix with them. */
const HEAD = 'Q6_K';

/** Recipes of llama.cpp, by name; those that are one type for all but the head among them. */
const RECIPES: Readonly<Record<string, Recipe>> = {
  Q2_K: {
    id: 10,
    base: 'Q2_K',
    mix: (place) =>
      isValue(place) ? (place.shared >= 4 ? 'Q4_K' : 'Q3_K') : isDown(place) || isOutput(place) ? 'Q3_K' : undefined,
  },
  Q3_K_S: { id: 11, base: 'Q3_K' },
  Q3_K_M: {
    id: 12,
    base: 'Q3_K',
    mix(place) {
      if (isValue(place)) return place.block < 2 ? 'Q5_K' : 'Q4_K';
      if (isOutput(place) || isFused(place)) return 'Q4_K';
      if (!isDown(place)) return undefined;
      return place.block < Math.floor(place.blocks / 16) ? 'Q5_K' : 'Q4_K';
    },
  },
  Q3_K_L: {
    id: 13,
    base: 'Q3_K',
    mix: (place) => (isValue(place) || isDown(place) || isOutput(place) ? 'Q5_K' : isFused(place) ? 'Q4_K' : undefined),
  },
  Q4_K_S: {
    id: 14,
    base: 'Q4_K',
    mix(place) {
      if (isValue(place)) return place.block < 4 ? 'Q5_K' : undefined;
      return isDown(place) && place.block < Math.floor(place.blocks / 8) ? 'Q5_K' : undefined;
    },
  },
  Q4_K_M: {
    id: 15,
    base: 'Q4_K',
    mix: (place) =>
      (isValue(place) || isDown(place)) && deservesMore(place) ? 'Q6_K' : isFused(place) ? 'Q5_K' : undefined,
  },
  Q5_K_S: { id: 16, base: 'Q5_K' },
  Q5_K_M: {
    id: 17,
    base: 'Q5_K',
    mix: (place) => (isFused(place) || ((isValue(place) || isDown(place)) && deservesMore(place)) ? 'Q6_K' : undefined),
  },
};

/** llama.cpp's numbers of files of one type. */
const FILE_TYPES: Readonly<Record<string, number>> = {
  Q4_0: 2,
  Q4_1: 3,
  Q8_0: 7,
  Q5_0: 8,
  Q5_1: 9,
  Q2_K: 10,
  Q3_K: 12,
  Q4_K: 15,
  Q5_K: 17,
  Q6_K: 18,
  IQ4_NL: 25,
  IQ4_XS: 30,
};

/** What may be asked for: types in small letters, then recipes as llama.cpp spells them. */
export const TYPE_NAMES: readonly string[] = [
  ...BLOCK_TYPES.map(({ name }) => name.toLowerCase()),
  ...Object.keys(RECIPES),
];

/** `general.file_type` of what is asked for. */
export function fileTypeOf(asked: string): number {
  return RECIPES[asked]?.id ?? FILE_TYPES[asked.toUpperCase()] ?? 0;
}

/** The type of a matrix, whose rows fill blocks of 32. */
export function typeOf(asked: string, site: LinearSite, source: Pick<TensorSource, 'entries' | 'envelope'>): BlockType {
  const recipe = RECIPES[asked];
  const name = recipe === undefined ? asked.toUpperCase() : mixed(recipe, site, source);
  const cols = site.shape[1];
  return blockType(cols % blockType(name)!.weights === 0 ? name : FALLBACK[name]!)!;
}

function mixed(
  { base, mix }: Recipe,
  { name }: LinearSite,
  { entries, envelope }: Pick<TensorSource, 'entries' | 'envelope'>,
): string {
  const tied = !entries.has('output.weight');
  if (name === (tied ? 'token_embd' : 'output')) return HEAD;
  const of = (key: string) => {
    const value = envelope.config?.[`${String(envelope.config?.['general.architecture'])}.${key}`];
    return typeof value === 'number' ? value : undefined;
  };
  const block = /^blk\.(\d+)\./.exec(name)?.[1];
  if (block === undefined || mix === undefined) return base;
  const heads = of('attention.head_count') ?? 1;
  const shared = heads / (of('attention.head_count_kv') ?? heads);
  return mix({ name, block: Number(block), blocks: of('block_count') ?? 0, shared }) ?? base;
}
