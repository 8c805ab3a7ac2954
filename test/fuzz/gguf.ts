import { MORE } from '../../lib/containers/gguf/cursor.js';
import { headerSteps } from '../../lib/containers/gguf/header.js';
import { atOnce } from '../../lib/files/event-loop.js';
import { type GgufPair, type GgufTensor, ggufFile } from '../support/gguf.js';
import { attempt, demand, type Target } from './outcome.js';
import { damage, Random } from './random.js';

// Headers of GGUF files, sound and damaged. What is accepted has its tensors inside the file, aligned and apart; a file that was not
// damaged is accepted, and its first bytes alone never are.

const BLOCKS: readonly (readonly [id: number, elements: number, bytes: number])[] = [
  [0, 1, 4],
  [1, 1, 2],
  [2, 32, 18],
  [8, 32, 34],
  [12, 256, 144],
  [30, 1, 2],
];

function makePairs(random: Random): GgufPair[] {
  const all: GgufPair[] = [
    ['general.architecture', 'string', 'llama'],
    ['llama.block_count', 'u32', random.below(1000)],
    ['tokenizer.ggml.tokens', 'strings', Array.from({ length: random.below(9) }, (_, i) => 'x'.repeat(i))],
    ['tokenizer.ggml.scores', 'f32s', Array.from({ length: random.below(9) }, (_, i) => -i)],
    ['nested', 'nested', [[1], [], [2, 3]]],
    ['flag', 'bool', random.below(2)],
  ];
  return all.filter(() => random.chance(60));
}

function makeTensors(random: Random): GgufTensor[] {
  return Array.from({ length: random.below(5) }, (_, i) => {
    const [type, elements, size] = random.pick(BLOCKS);
    const rows = random.below(4);
    const blocks = 1 + random.below(2);
    return { name: `blk.${i}.w`, type, shape: [rows, blocks * elements], bytes: new Uint8Array(rows * blocks * size) };
  });
}

export const gguf: Target = {
  name: 'gguf',
  quick: 25_000,
  full: 2_000_000,
  tryOne(seed, input) {
    const random = new Random(seed, input);
    const alignment = random.pick([8, 32, 64, 4096]);
    const pairs = makePairs(random);
    if (alignment !== 32 || random.chance(10)) pairs.push(['general.alignment', 'u32', alignment]);
    const sound = ggufFile(pairs, makeTensors(random), alignment);
    const damaged = random.chance(70);
    let file: Buffer = sound;
    if (damaged) file = Buffer.from(damage(random, sound));
    if (random.chance(5)) file = file.subarray(0, random.below(file.length + 1));
    const source = { file: 'x.gguf', path: 'x.gguf', fileSize: file.length };
    const header = attempt(['ERR_CHECKPOINT_FORMAT'], () => atOnce(headerSteps(file, source)));
    if (header === undefined) {
      demand(!file.equals(sound), 'refused a sound file');
      return false;
    }
    let end = 0;
    for (const entry of header.tensors.values()) {
      demand(entry.begin % header.alignment === 0, 'a tensor is not aligned');
      demand(
        entry.end === entry.begin || (entry.begin >= end && entry.end <= file.length),
        'tensors overlap, or lie outside',
      );
      if (entry.end > entry.begin) end = entry.end;
    }
    // With less than the header it asks for more, and takes nothing for an error of the file.
    const some = file.subarray(0, random.below(24 + header.pairBytes.byteLength));
    try {
      atOnce(headerSteps(some, source));
      demand(header.tensors.size === 0, 'read more than there was');
    } catch (error) {
      if (error !== MORE) throw error;
    }
    return true;
  },
};
