import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openModel, quantizeModel } from '../../lib/index.js';
import { llamaTensors, safetensorsBytes, writeLlama } from '../support/models.js';
import { attempt, attemptLater, demand, type Target } from './outcome.js';
import { damage, Random } from './random.js';

// Whole models on disk, quantized and in shards, with one file damaged: opened, and all that is in them read and multiplied.

const REFUSALS = ['ERR_CHECKPOINT_FORMAT', 'ERR_CHECKPOINT_CONTENT', 'ERR_IO'] as const;
const WIDTH = 16;

interface Model {
  readonly folder: string;
  readonly files: ReadonlyMap<string, Buffer>;
}

let models: Promise<readonly Model[]> | undefined;

/** Written once, in a folder that goes with the process. */
async function makeModels(): Promise<readonly Model[]> {
  const scratch = fs.mkdtempSync(join(tmpdir(), 'hqq-fuzz-'));
  process.once('exit', () => fs.rmSync(scratch, { recursive: true, force: true }));
  const original = writeLlama(join(scratch, 'original'), 1, WIDTH);
  const quantized = [join(scratch, 'hqq4'), join(scratch, 'hqq3')];
  await quantizeModel(original, quantized[0]!, { nbits: 4, groupSize: 16 });
  await quantizeModel(original, quantized[1]!, { nbits: 3, groupSize: 8, axis: 0, metaDtype: 'float32' });
  for (const to of ['compressed-tensors', 'awq', 'gptq', 'torchao'] as const) {
    const folder = join(scratch, to);
    await quantizeModel(original, folder, { to, nbits: 4, groupSize: 8 });
    quantized.push(folder);
  }
  const shards = join(scratch, 'shards');
  fs.mkdirSync(shards);
  const weightMap: Record<string, string> = {};
  const parts: Record<string, ReturnType<typeof llamaTensors>> = {
    'model-1.safetensors': {},
    'model-2.safetensors': {},
  };
  Object.entries(llamaTensors(1, WIDTH)).forEach(([name, tensor], i) => {
    const shard = Object.keys(parts)[i % 2]!;
    parts[shard]![name] = tensor;
    weightMap[name] = shard;
  });
  for (const [shard, tensors] of Object.entries(parts))
    fs.writeFileSync(join(shards, shard), safetensorsBytes(tensors));
  fs.writeFileSync(
    join(shards, 'model.safetensors.index.json'),
    JSON.stringify({ metadata: {}, weight_map: weightMap }),
  );
  fs.copyFileSync(join(original, 'config.json'), join(shards, 'config.json'));
  return [...quantized, shards].map((folder) => {
    const names = fs
      .readdirSync(folder)
      .filter((name) => /\.(safetensors|json)$/.test(name) && name !== 'tokenizer.json');
    return { folder, files: new Map(names.map((name) => [name, fs.readFileSync(join(folder, name))])) };
  });
}

/** JSON is damaged as text, a header so that its length still fits most often, the data now and then. */
function damageFile(random: Random, name: string, bytes: Buffer): Buffer {
  if (!name.endsWith('.safetensors')) return damage(random, bytes);
  const end = 8 + Number(bytes.readBigUInt64LE(0));
  if (random.chance(10)) return damage(random, bytes);
  if (random.chance(30)) {
    // Small tensors (scales, zeros, what says how a layer is packed) are data, too: another number where one was.
    const copy = Buffer.from(bytes);
    for (let times = 1 + random.below(4); times > 0 && end < copy.length; times--)
      copy[end + random.below(copy.length - end)] = random.pick([0, 1, 127, 255, random.below(256)]);
    return copy;
  }
  const header = damage(random, bytes.subarray(8, end));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([prefix, header, bytes.subarray(end)]);
}

async function readAll(folder: string): Promise<boolean> {
  const model = await attemptLater(REFUSALS, () => openModel(folder));
  if (!model) return false;
  try {
    for (const { name, shape } of model.tensors) {
      const count = shape.reduce((product, size) => product * size, 1);
      const numbers = attempt([...REFUSALS, 'ERR_INVALID_ARGUMENT'], () => model.tensor(name));
      if (numbers) demand(numbers.length === count, `${name} has ${numbers.length} numbers in a shape of ${count}`);
      if (!numbers || !name.endsWith('_proj.weight')) continue;
      const layer = attempt([...REFUSALS, 'ERR_INVALID_ARGUMENT'], () => model.linear(name));
      if (layer)
        demand(
          layer.forwardSync(new Float32Array(layer.inFeatures)).length === layer.outFeatures,
          `${name} gives another length`,
        );
    }
  } finally {
    await model.close();
  }
  return true;
}

export const checkpoint: Target = {
  name: 'checkpoint',
  quick: 600,
  full: 20_000,
  async tryOne(seed, input) {
    const random = new Random(seed, input);
    const { folder, files } = random.pick(await (models ??= makeModels()));
    const [name, bytes] = random.pick([...files]);
    fs.writeFileSync(join(folder, name), damageFile(random, name, bytes));
    try {
      return await readAll(folder);
    } finally {
      fs.writeFileSync(join(folder, name), bytes);
    }
  },
};
