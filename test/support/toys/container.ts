import * as fs from 'node:fs/promises';
import { basename } from 'node:path';
import type {
  Container,
  Envelope,
  EnvelopeChange,
  Layout,
  LinearSite,
  OtherTensor,
  TensorEntry,
  TensorSink,
  TensorSource,
  TensorSpec,
} from '../../../lib/containers/container.js';
import { eachOf } from '../../../lib/containers/range.js';
import { storedType } from '../../../lib/containers/stored-types.js';

// A file format for tests: "TOY", the length of a JSON in hexadecimal digits, the JSON, and the bytes of the tensors. The JSON
// says what each tensor is, describes the model, and names its linear layers with the tensors that hold each of them.

interface Head {
  readonly tensors: readonly (readonly [name: string, type: string, shape: readonly number[]])[];
  readonly about: Readonly<Record<string, unknown>>;
  readonly layers: readonly Layer[];
}

interface Layer {
  readonly name: string;
  readonly stored: LinearSite['stored'];
  readonly tensors: readonly string[];
}

const MARK = 'TOY';
const PREFIX = MARK.length + 8;

class ToyEnvelope implements Envelope {
  readonly notes = ['This is a toy.'];

  constructor(
    readonly config: Readonly<Record<string, unknown>>,
    readonly layers: readonly Layer[],
  ) {}

  obstacle(): undefined {}

  get fingerprint(): string {
    return JSON.stringify([this.config, this.layers]);
  }

  linears(entries: ReadonlyMap<string, TensorEntry>): readonly (LinearSite | OtherTensor)[] {
    const sites = new Map(this.layers.map((layer) => [`${layer.name}.weight`, layer]));
    return [...entries.values()].map((entry) => {
      const layer = sites.get(entry.name);
      if (!layer) return { entry, reason: 'no linear layer of the toy', linear: false };
      const [rows, cols] = entry.shape as [number, number];
      const bias = entries.get(`${layer.name}.bias`);
      return {
        ...{ name: layer.name, weight: entry, stored: layer.stored, ...(bias ? { bias } : {}) },
        shape: layer.stored === 'out-in' ? [rows, cols] : [cols, rows],
      };
    });
  }

  replace({ layers, set, drop }: EnvelopeChange): ToyEnvelope {
    const changed = new Map([...layers].map(({ name, tensors }) => [name, tensors.map((tensor) => tensor.name)]));
    const kept = Object.entries(this.config).filter(([name]) => !drop.includes(name));
    return new ToyEnvelope(
      { ...Object.fromEntries(kept), ...set },
      this.layers.map((layer) => ({ ...layer, tensors: changed.get(layer.name) ?? layer.tensors })),
    );
  }

  companions(): readonly [] {
    return [];
  }
}

interface ToyLayout extends Layout {
  readonly head: Buffer;
}

/** Where the tensors of a head are. */
function placed(tensors: readonly TensorSpec[], file: string, begin: number): Map<string, TensorEntry> {
  let at = begin;
  return new Map(
    tensors.map(({ name, type, shape }) => {
      const elements = shape.reduce((product, size) => product * size, 1);
      const entry = {
        name,
        type,
        shape,
        file,
        begin: at,
        end: (at += (elements / type.blockElements) * type.blockBytes),
      };
      return [name, entry];
    }),
  );
}

function layoutOf(file: string, specs: readonly TensorSpec[], envelope: ToyEnvelope): ToyLayout {
  const tensors = specs.map(({ name, type, shape }) => [name, type.name, shape] as const);
  const json = Buffer.from(JSON.stringify({ tensors, about: envelope.config, layers: envelope.layers } satisfies Head));
  const head = Buffer.concat([Buffer.from(MARK + json.length.toString(16).padStart(8, '0')), json]);
  const entries = placed(specs, file, head.length);
  return { head, entries, fileSize: [...entries.values()].at(-1)?.end ?? head.length };
}

async function openToy(path: string): Promise<TensorSource> {
  const handle = await fs.open(path);
  const bytes = async (at: number, into: Uint8Array) => {
    await handle.read(into, 0, into.byteLength, at);
    return Buffer.from(into.buffer, into.byteOffset, into.byteLength);
  };
  const length = Number.parseInt((await bytes(0, new Uint8Array(PREFIX))).toString('latin1', MARK.length), 16);
  const head = JSON.parse((await bytes(PREFIX, new Uint8Array(length))).toString()) as Head;
  const name = basename(path);
  const specs = head.tensors.map(([tensor, type, shape]) => ({ name: tensor, type: storedType(type), shape }));
  const { readSync } = await import('node:fs');
  return {
    ...{ container: 'toy', path, kind: 'file' },
    files: [{ name, path, size: (await handle.stat()).size }],
    entries: placed(specs, name, PREFIX + length),
    envelope: new ToyEnvelope(head.about, head.layers),
    read: async (entry, at, into) => void (await bytes(entry.begin + at, into)),
    readSync: (entry, at, into) => void readSync(handle.fd, into, 0, into.byteLength, entry.begin + at),
    readSpan: async (_, at, into) => void (await bytes(at, into)),
    close: () => handle.close(),
  };
}

async function createToy(path: string, { head, entries, fileSize }: ToyLayout): Promise<TensorSink> {
  const handle = await fs.open(path, 'wx');
  await handle.truncate(fileSize);
  await handle.write(head, 0, head.length, 0);
  const write = async (name: string, at: number, bytes: Uint8Array) => {
    await handle.write(bytes, 0, bytes.byteLength, entries.get(name)!.begin + at);
  };
  return {
    write,
    async writePieces(name, pieces, from) {
      const bytes = from instanceof Uint8Array ? from : await from.bytes();
      let offset = 0;
      for (const { at, count } of eachOf(pieces)) await write(name, at, bytes.subarray(offset, (offset += count)));
    },
    finish: () => handle.close(),
    abandon: () => handle.close(),
  };
}

/** The container, for the list. */
export const toyContainer: Container = {
  name: 'toy',
  title: 'a toy',
  ending: '.toy',
  begins: (prefix) => Buffer.from(prefix).toString('latin1', 0, MARK.length) === MARK,
  isPart: () => false,
  open: openToy,
  layout: (name, specs, envelope) => layoutOf(name, specs, envelope as ToyEnvelope),
  create: (path, layout) => createToy(path, layout as ToyLayout),
};

/** A model in a toy file. */
export async function writeToy(
  path: string,
  tensors: Readonly<
    Record<string, { readonly dtype: string; readonly shape: readonly number[]; readonly bytes: Uint8Array }>
  >,
  layers: Readonly<Record<string, LinearSite['stored']>>,
): Promise<void> {
  const specs = Object.entries(tensors).map(([name, { dtype, shape }]) => ({ name, type: storedType(dtype), shape }));
  const named = Object.entries(layers).map(([name, stored]) => ({ name, stored, tensors: [`${name}.weight`] }));
  const sink = await createToy(path, layoutOf(basename(path), specs, new ToyEnvelope({ about: 'toys' }, named)));
  for (const [name, { bytes }] of Object.entries(tensors)) await sink.write(name, 0, bytes);
  await sink.finish();
}
