import { widenBytes } from '../../compute/floats.js';
import { pathOfFile, type TensorEntry, type TensorSource } from '../../containers/container.js';
import { yieldIfDue } from '../../files/event-loop.js';
import { DTYPES } from '../../matrix/dtype.js';
import { formatError, quote } from '../../messages/text.js';
import { type RowChunk, rowsOf } from '../rows/chunks.js';
import type { RowLayer, RowParts } from '../rows/read.js';
import { biasOf, declaredOf, describe, isLike, refusalOf } from '../rows/stored.js';

/** A layer of torchao: `IntxUnpackedToInt8Tensor`. */
export interface UnpackedLayer extends RowLayer {
  readonly codes: TensorEntry;
  readonly scale: TensorEntry;
  readonly zeros: TensorEntry;
}

const CODES = '._weight_qdata';

/** Names of the tensors that hold codes. */
export function namesOfUnpacked({ entries }: Pick<TensorSource, 'entries'>): readonly string[] {
  return [...entries.values()]
    .filter(({ name, type, shape }) => {
      if (!name.endsWith(CODES) || type.name !== 'I8' || shape.length !== 2) return false;
      return entries.has(`${name.slice(0, -CODES.length)}._weight_zero_point`);
    })
    .map(({ name }) => name);
}

/** Every such layer, in file order. Trusts nothing. @throws {HqqError} `ERR_CHECKPOINT_FORMAT` */
export async function findUnpacked(source: TensorSource): Promise<readonly UnpackedLayer[]> {
  const layers: UnpackedLayer[] = [];
  for (const name of namesOfUnpacked(source)) {
    layers.push(readUnpacked(source, name.slice(0, -CODES.length)));
    await yieldIfDue();
  }
  return layers;
}

/** Bits that a text says: of a tensor in the metadata of its file, or of all in config.json. */
const bitsIn = (text: string | undefined): number | undefined => {
  const bits = /"_data"\s*:\s*"(?:torch\.)?int([1-8])"/.exec(text ?? '')?.[1];
  return bits === undefined ? undefined : Number(bits);
};

function readUnpacked(source: TensorSource, module: string): UnpackedLayer {
  const at = (key: string) => source.entries.get(`${module}.${key}`);
  const codes = at('_weight_qdata')!;
  const refuse = refusalOf(pathOfFile(source, codes), module);
  const scale = at('_weight_scale') ?? refuse('has _weight_qdata but no _weight_scale');
  const zeros = at('_weight_zero_point')!;
  const said = source.envelope.metadata?.(codes.file).get(`${module}.weight`);
  const type = /"_type"\s*:\s*"(\w+)"/.exec(said ?? '')?.[1];
  if (type !== undefined && type !== 'IntxUnpackedToInt8Tensor') {
    refuse(`is a ${type.slice(0, 60)} of torchao, where IntxUnpackedToInt8Tensor is needed`);
  }
  const block = /"block_size"\s*:\s*\[\s*(\d{1,15})\s*,\s*(\d{1,15})\s*\]/.exec(said ?? '');
  const bits = bitsIn(said) ?? bitsIn(JSON.stringify(declaredOf(source.envelope.config))) ?? 8;
  const [outs, ins] = codes.shape as [number, number];
  const groups = scale.shape.length === 2 ? scale.shape[1]! : 0;
  if (
    outs === 0 ||
    ins === 0 ||
    scale.type.float === undefined ||
    scale.shape[0] !== outs ||
    groups === 0 ||
    ins % groups !== 0
  ) {
    return refuse(
      `has ${describe(scale)} as _weight_scale, where floating-point [${outs}, groups of a row of ${ins}] is needed`,
    );
  }
  if (!isLike(zeros, 'I8', [outs, groups]) && !isLike(zeros, scale.type.name, [outs, groups])) {
    refuse(
      `has ${describe(zeros)} as _weight_zero_point, where I8 or ${scale.type.name} [${outs}, ${groups}] is needed`,
    );
  }
  if (block && (Number(block[1]) !== 1 || Number(block[2]) !== ins / groups)) {
    refuse(`has groups of ${ins / groups}, where its file says blocks of ${block[1]} x ${block[2]}`);
  }
  const stored = [codes, scale, zeros].reduce((sum, { begin, end }) => sum + 8 * (end - begin), 0);
  return {
    ...{ scheme: 'torchao', name: module, bare: false, shape: [outs, ins], stored: 'out-in', together: 1 },
    entries: [codes, scale, zeros],
    bias: biasOf(source, module, outs, refuse),
    storage: {
      ...{ nbits: bits, groupSize: ins / groups, axis: 1, packing: 'int8', metaDtype: scale.type.float },
      zeroPoint: zeros.type.float === undefined ? 'integer' : 'float',
      bitsPerWeight: stored / (outs * ins),
    },
    ...{ codes, scale, zeros },
  };
}

/** What is read of some rows of a layer. */
export function partsOf({ codes, scale, zeros, shape, storage }: UnpackedLayer, chunk: RowChunk): RowParts {
  const groups = shape[1] / storage.groupSize;
  const dtype = scale.type.float!;
  const { float } = zeros.type;
  const size = DTYPES[dtype].bytes;
  const middle = 2 ** (storage.nbits - 1);
  const mask = 2 ** storage.nbits - 1;
  return {
    reads: [
      { entry: codes, ranges: rowsOf(chunk, shape[1]), size: 1 },
      { entry: scale, ranges: rowsOf(chunk, groups), size },
      { entry: zeros, ranges: rowsOf(chunk, groups), size: float === undefined ? 1 : size },
    ],
    unpack([codeBytes, scaleBytes, zeroBytes], into) {
      const signed = new Int8Array(codeBytes!.buffer, codeBytes!.byteOffset, codeBytes!.length);
      let all = 0;
      for (let i = 0; i < signed.length; i++) {
        const code = signed[i]! + middle;
        all |= code;
        into.codes[i] = code;
      }
      if ((all & ~mask) !== 0) {
        throw formatError(codes.file, `${quote(codes.name)} holds numbers that are no codes of ${storage.nbits} bits.`);
      }
      widenBytes(scaleBytes!, dtype, into.scale);
      if (float !== undefined) widenBytes(zeroBytes!, float, into.zero);
      else into.zero.set(new Int8Array(zeroBytes!.buffer, zeroBytes!.byteOffset, zeroBytes!.length));
      for (let i = 0; i < into.zero.length; i++) into.zero[i]! += middle;
    },
  };
}
