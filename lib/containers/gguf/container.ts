import { inTurns } from '../../files/event-loop.js';
import { HqqError } from '../../messages/errors.js';
import { plain, quote } from '../../messages/text.js';
import type { Container, TensorSink } from '../container.js';
import { type FileLayout, FileWriter } from '../writer.js';
import type { GgufEnvelope } from './envelope.js';
import { MAGIC } from './header.js';
import { layoutSteps } from './layout.js';
import { GgufSource } from './source.js';

/** Files of llama.cpp and of what is built on it. */
export const gguf: Container = {
  name: 'gguf',
  title: 'a GGUF file',
  ending: '.gguf',

  begins: (prefix) =>
    Buffer.from(prefix.buffer, prefix.byteOffset, prefix.byteLength).toString('latin1', 0, 4) === MAGIC,
  isPart: (name) => /-\d{5}-of-\d{5}\.gguf$/.test(name),
  open: (path) => GgufSource.open(path),
  adopts: ['safetensors'],
  adopt: async (source, weightsOnly) => (await import('./language/to-gguf.js')).asGguf(source, weightsOnly),
  staysWide: ({ shape }) => shape.length === 1,
  layout: (name, specs, envelope) => inTurns(layoutSteps(name, specs, envelope as GgufEnvelope)),
  create: async (path, layout, mode) => checkedSink(await FileWriter.create(path, layout as FileLayout, mode)),
};

/** A file that is read back when it is finished: a wrong one would end the process of who loads it in llama.cpp. */
function checkedSink(writer: FileWriter): TensorSink {
  return {
    write: (name, at, bytes) => writer.write(name, at, bytes),
    writePieces: (name, pieces, bytes, signal) => writer.writePieces(name, pieces, bytes, signal),
    abandon: () => writer.abandon(),
    async finish() {
      await writer.finish();
      await checkWritten(writer.path, writer.layout);
    },
  };
}

async function checkWritten(path: string, { entries, fileSize }: FileLayout): Promise<void> {
  const source = await GgufSource.open(path);
  await source.close();
  const same = ({
    name,
    type,
    shape,
    begin,
    end,
  }: {
    name: string;
    type: { name: string };
    shape: readonly number[];
    begin: number;
    end: number;
  }) => JSON.stringify([name, type.name, shape, begin, end]);
  const [read, planned] = [[...source.entries.values()].map(same), [...entries.values()].map(same)];
  const wrong = planned.findIndex((text, i) => read[i] !== text);
  if (wrong < 0 && read.length === planned.length && source.files[0]!.size === fileSize) return;
  const what = quote([...entries.keys()][Math.max(0, wrong)] ?? '');
  throw new HqqError(
    'ERR_CHECKPOINT_CONTENT',
    `Expected ${plain(path)} to be read back as it was planned, got another ${what}.`,
  );
}
