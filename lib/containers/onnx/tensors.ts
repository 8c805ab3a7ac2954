import { formatError, quote } from '../../messages/text.js';
import { type StoredType, storedType } from '../stored-types.js';
import { block, whole } from './encode.js';
import { SPELT, speltNumbers } from './spelt.js';
import { type Field, type Hole, integersOf, Message, messageOf, numberOf, textOf } from './wire.js';

// Tensors as ONNX has them: dimensions, a type, and numbers that lie in the message or in a file beside the model.

/** Numbers of types, as TensorProto has them, and how they are stored. Others are carried over as bytes. */
const TYPES: Readonly<Record<number, string>> = {
  ...{ 1: 'F32', 2: 'U8', 3: 'I8', 4: 'U16', 5: 'I16', 6: 'I32', 7: 'I64', 9: 'BOOL', 10: 'F16', 11: 'F64', 12: 'U32' },
  ...{ 13: 'U64', 14: 'C64', 16: 'BF16', 17: 'F8_E4M3', 18: 'F8_E4M3FNUZ', 19: 'F8_E5M2', 20: 'F8_E5M2FNUZ' },
};

const NUMBERS: ReadonlyMap<string, number> = new Map(
  Object.entries(TYPES).map(([number, name]) => [name, Number(number)]),
);

/** The number of a type that is written. */
export function typeNumber(type: StoredType): number {
  const found = NUMBERS.get(type.name);
  if (found === undefined) throw new RangeError(`Expected a type that ONNX has, got ${type.name}.`);
  return found;
}

/** Most dimensions of a tensor. */
const MAX_DIMENSIONS = 64;

/** Where the numbers of a tensor lie in another file. */
export interface External {
  readonly location: string;
  readonly offset: number;
  /** Bytes; undefined where it does not say: as many as it has. */
  readonly length: number | undefined;
}

export interface OnnxTensor {
  /** As the graph calls it. */
  readonly name: string;
  /** By which it is known in all of the model: the same, as a rule. Undefined for one whose numbers lie nowhere together, nor are a matrix that is spelt one by one. */
  readonly key: string | undefined;
  readonly type: StoredType;
  readonly shape: readonly number[];
  readonly message: Message;
  readonly hole: Hole | undefined;
  readonly external: External | undefined;
  /** Numbers of a float matrix that are spelt one by one in the message. */
  readonly spelt: Uint8Array | undefined;
  /** Bytes of its numbers. */
  readonly bytes: number;
}

/**
 * A tensor of a message that is read, without a key.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_FORMAT` for one whose dimensions, or where it says that it lies, cannot be
 */
export function tensorOf(message: Message, path: string, called?: string): OnnxTensor {
  const name = called ?? textOf(message.bytes(8));
  const refuse = (what: string): never => {
    throw formatError(path, `tensor ${quote(name)} ${what}. The file is damaged.`);
  };
  const shape = integersOf(message, 1, MAX_DIMENSIONS, path);
  if (shape.some((size) => !Number.isSafeInteger(size) || size < 0)) refuse(`has the dimensions [${shape.join(', ')}]`);
  const count = shape.reduce((product, size) => product * size, 1);
  const number = numberOf(message.bytes(2));
  const known = TYPES[number];
  const holes: Hole[] = [];
  for (const { payload } of message.fields) if (isHole(payload)) holes.push(payload);
  const external = numberOf(message.bytes(14)) === 1 ? externalOf(message, path, refuse) : undefined;
  if (holes.length > 1) refuse('has its numbers more than once');
  if (external !== undefined && holes.length > 0) refuse('has numbers, and says that they lie in another file');
  const size = known === undefined ? undefined : count * storedType(known).blockBytes;
  if (size !== undefined && !Number.isSafeInteger(size)) refuse(`has the dimensions [${shape.join(', ')}]`);
  const found = holes[0] ? holes[0].end - holes[0].begin : external?.length;
  // Numbers may be spelt one by one, float_data not packed among them; of no numbers there are no bytes.
  const inMessage = holes.length === 0 && external === undefined;
  if (!inMessage && size !== undefined && found !== undefined && found !== size)
    refuse(`has ${found} bytes, where ${known} [${shape.join(', ')}] takes ${size}`);
  if (external && size === undefined && found === undefined)
    refuse('is of a type that is not known, and says no length');
  // Others that are spelt, vectors and lists of sizes, are no weights, and stay as they are.
  const isMatrix = inMessage && count > 0 && shape.length === 2 && known !== undefined;
  const spelt = isMatrix && storedType(known).float ? speltNumbers(message, known, count) : undefined;
  if (isMatrix && storedType(known).float && spelt === undefined && message.fields.some(isSpelt))
    refuse(`spells other numbers one by one than ${known} [${shape.join(', ')}] has`);
  const bytes = inMessage ? (spelt?.length ?? 0) : (found ?? size ?? 0);
  const [type, dims] = known === undefined ? [storedType('U8'), [bytes]] : [storedType(known), shape];
  return { name, key: undefined, type, shape: dims, message, hole: holes[0], external, spelt, bytes };
}

/** Whether a field of a tensor spells numbers, one or a run of them. */
const isSpelt = ({ number, payload }: Field) => SPELT.has(number) && payload instanceof Uint8Array;

export const isHole = (payload: Field['payload']): payload is Hole =>
  !(payload instanceof Uint8Array) && !(payload instanceof Message);

function externalOf(message: Message, path: string, refuse: (what: string) => never): External {
  const said = new Map<string, string>();
  for (const payload of message.all(13)) {
    if (!(payload instanceof Uint8Array)) continue;
    const pair = messageOf(payload, path);
    said.set(textOf(pair.bytes(1)), textOf(pair.bytes(2)));
  }
  const number = (key: string): number | undefined => {
    const text = said.get(key);
    if (text === undefined) return undefined;
    const value = Number(text);
    if (!/^\d{1,16}$/.test(text) || !Number.isSafeInteger(value))
      refuse(`lies in another file at ${key} ${quote(text)}`);
    return value;
  };
  const location = said.get('location') ?? '';
  // As ONNX has it: plain names, with folders perhaps, below that of the model.
  const parts = location.split(/[/\\]/);
  if (location === '' || /^[/\\]|^[A-Za-z]:|\0/.test(location) || parts.includes('..'))
    refuse(`lies in ${quote(location)}, where the path of a file in the folder of the model is needed`);
  return { location, offset: number('offset') ?? 0, length: number('length') };
}

/** A tensor's message whose numbers are those of the entry `key`, in the file itself. */
export function inlineMessage(message: Message, key: string, bytes: number): Message {
  const own = message.fields.findIndex(({ payload }) => isHole(payload));
  const hole: Hole = { begin: 0, end: bytes, entry: key };
  if (own >= 0) return new Message(message.fields.map((field, i) => (i === own ? { ...field, payload: hole } : field)));
  return new Message([...withoutPlace(message).filter((field) => !isSpelt(field)), block(9, hole)]);
}

/** The same of numbers that lie in another file. */
export function externalMessage(message: Message, location: string, offset: number, bytes: number): Message {
  const pair = (key: string, value: string) => block(13, new Message([block(1, key), block(2, value)]));
  const fields = withoutPlace(message).filter(({ payload }) => !isHole(payload));
  return new Message([
    ...fields,
    ...[pair('location', location), pair('offset', String(offset)), pair('length', String(bytes)), whole(14, 1)],
  ]);
}

const withoutPlace = ({ fields }: Message) => fields.filter(({ number }) => number !== 13 && number !== 14);

/** A tensor that is made, without its numbers. */
export function newTensor(name: string, type: StoredType, shape: readonly number[], note?: string): Message {
  return new Message([
    ...shape.map((size) => whole(1, size)),
    whole(2, typeNumber(type)),
    block(8, name),
    ...(note === undefined ? [] : [block(12, note)]),
  ]);
}

/** A small tensor that is made, with its numbers. */
export function smallTensor(name: string, type: StoredType, shape: readonly number[], bytes: Uint8Array): Field {
  return block(5, new Message([...newTensor(name, type, shape).fields, block(9, bytes)]));
}
