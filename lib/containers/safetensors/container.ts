import { inTurns } from '../../files/event-loop.js';
import { HqqError } from '../../messages/errors.js';
import { plain } from '../../messages/text.js';
import { formatBytes, formatCount } from '../../messages/units.js';
import type { Container, Envelope, TensorSpec } from '../container.js';
import { FileWriter } from '../writer.js';
import { Checkpoint } from './checkpoint.js';
import { CheckpointEnvelope } from './envelope.js';
import { LENGTH_BYTES, MAX_HEADER_BYTES, MAX_TENSORS } from './header.js';
import { layoutSteps, type SafetensorsLayout } from './layout.js';
import { checkReadable } from './shards.js';

/** Shortest text of a tensor in a header, save its name: dtype, shape, offsets. */
const SHORTEST_ENTRY = '"":{"dtype":"U8","shape":[],"data_offsets":[0,1]},'.length;

/** Files of the safetensors library, and Hugging Face folders of such. */
export const safetensors: Container = {
  name: 'safetensors',
  title: 'a safetensors file',
  ending: '.safetensors',

  /** The length of a header that fits into the file, then the header, which begins with a brace. */
  begins(prefix, size) {
    if (prefix.byteLength <= LENGTH_BYTES || prefix[LENGTH_BYTES] !== 0x7b) return false;
    const length = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
    return length <= BigInt(size - LENGTH_BYTES);
  },
  isPart: (name) => name === 'model.safetensors' || /-\d+-of-\d+\.safetensors$/.test(name),
  opensFolder: async () => true,

  open: (path) => Checkpoint.open(path),
  adopts: ['gguf'],
  async adopt(source) {
    const { asFolder } = await import('../gguf/language/from-gguf.js');
    return asFolder(source, (config) => {
      const text = `${JSON.stringify(config, null, 2)}\n`;
      const metadata = new Map([['model.safetensors', new Map<string, string>()]]);
      return new CheckpointEnvelope({
        path: source.path,
        folder: source.path,
        metadata,
        config: { text, value: config },
      });
    });
  },

  demandRoom(path, tensors, nameBytes, why) {
    const refuse = (most: string, need: string) => {
      const message = `Expected ${most} for each file, but ${plain(path)} would need ${need}`;
      throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}: ${why}. Split the model into shards.`);
    };
    const least = nameBytes + tensors * SHORTEST_ENTRY;
    if (least > MAX_HEADER_BYTES)
      refuse(`a header of at most ${formatBytes(MAX_HEADER_BYTES)}`, `${formatBytes(least)} or more`);
    if (tensors > MAX_TENSORS) refuse(`at most ${formatCount(MAX_TENSORS)} tensors`, formatCount(tensors));
  },

  layout(name: string, specs: readonly TensorSpec[], envelope: Envelope): Promise<SafetensorsLayout> {
    const metadata = envelope instanceof CheckpointEnvelope ? envelope.metadataOf(name) : {};
    return inTurns(layoutSteps(specs, metadata, name));
  },

  fresh: (name, metadata) =>
    new CheckpointEnvelope({
      ...{ path: name, folder: undefined },
      metadata: new Map([[name, new Map(Object.entries(metadata))]]),
    }),

  checkReadable(layouts) {
    return inTurns(checkReadable(layouts as ReadonlyMap<string, SafetensorsLayout>));
  },

  create: (path, layout, mode) => FileWriter.create(path, layout as SafetensorsLayout, mode),
};
