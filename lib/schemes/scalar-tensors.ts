import { pathOfFile, type TensorEntry, type TensorSource } from '../containers/container.js';
import { yieldIfDue } from '../files/event-loop.js';
import { formatError, quote } from '../messages/text.js';

/** Most bytes of a tensor that holds a number, two numbers or a word. */
const MAX_BYTES = 64;

/** Small tensors lie in clusters: those that are this near are read with one call. */
const GAP_BYTES = 4096;
const SPAN_BYTES = 256 * 1024;

/** What a small tensor holds, read as numbers and as letters; its reader knows which is meant. */
export interface SmallValue {
  readonly numbers: readonly number[];
  readonly text: string;
}

type Getter = (view: DataView, at: number) => number;

/** Types in which Python's versions store numbers and flags. */
const GETTERS: ReadonlyMap<string, { readonly bytes: number; readonly get: Getter }> = new Map(
  Object.entries({
    BOOL: { bytes: 1, get: (view, at) => view.getUint8(at) },
    U8: { bytes: 1, get: (view, at) => view.getUint8(at) },
    I8: { bytes: 1, get: (view, at) => view.getInt8(at) },
    I16: { bytes: 2, get: (view, at) => view.getInt16(at, true) },
    I32: { bytes: 4, get: (view, at) => view.getInt32(at, true) },
    I64: { bytes: 8, get: (view, at) => Number(view.getBigInt64(at, true)) },
    F32: { bytes: 4, get: (view, at) => view.getFloat32(at, true) },
    F64: { bytes: 8, get: (view, at) => view.getFloat64(at, true) },
  } satisfies Record<string, { readonly bytes: number; readonly get: Getter }>),
);

/**
 * The values of small tensors: a model of thousands of layers has tens of thousands of them.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_FORMAT` for one that is too large to be what it should be, or of a strange type.
 */
export async function readSmall(
  source: TensorSource,
  tensors: readonly TensorEntry[],
  signal?: AbortSignal,
): Promise<ReadonlyMap<TensorEntry, SmallValue>> {
  const values = new Map<TensorEntry, SmallValue>();
  for (const { file, begin, end, members } of spansOf(source, tensors)) {
    const bytes = Buffer.allocUnsafe(end - begin);
    await source.readSpan(file, begin, bytes, signal);
    for (const entry of members) {
      values.set(entry, readValue(entry.type.name, bytes.subarray(entry.begin - begin, entry.end - begin)));
      await yieldIfDue();
    }
  }
  return values;
}

interface Span {
  readonly file: string;
  readonly begin: number;
  end: number;
  readonly members: TensorEntry[];
}

function spansOf(source: TensorSource, tensors: readonly TensorEntry[]): readonly Span[] {
  const byFile = new Map<string, TensorEntry[]>();
  for (const tensor of tensors) {
    const { name, type, begin, end, shape } = tensor;
    if (!GETTERS.has(type.name) || shape.length > 1 || end - begin > MAX_BYTES) {
      const got = `${type.name} [${shape.slice(0, 8).join(', ')}]`;
      throw formatError(
        pathOfFile(source, tensor),
        `expected ${quote(name)} of a quantized layer to be a number or a word, got ${got}.`,
      );
    }
    const list = byFile.get(tensor.file);
    if (list) list.push(tensor);
    else byFile.set(tensor.file, [tensor]);
  }
  const spans: Span[] = [];
  for (const [file, list] of byFile) {
    list.sort((a, b) => a.begin - b.begin);
    let span: Span | undefined;
    for (const tensor of list) {
      const { begin, end } = tensor;
      if (!span || begin - span.end > GAP_BYTES || end - span.begin > SPAN_BYTES) {
        spans.push((span = { file, begin, end, members: [] }));
      }
      span.end = Math.max(span.end, end);
      span.members.push(tensor);
    }
  }
  return spans;
}

function readValue(dtype: string, bytes: Buffer): SmallValue {
  const { bytes: size, get } = GETTERS.get(dtype)!;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const numbers = Array.from({ length: bytes.byteLength / size }, (_, i) => get(view, i * size));
  return { numbers, text: dtype === 'U8' ? bytes.toString('latin1') : '' };
}
