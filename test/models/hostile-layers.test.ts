import * as fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { openModel } from '../../lib/models/model.js';
import {
  encode,
  failure,
  freshPath,
  randomTensor,
  type Source,
  type SourceTensor,
  tensorOf,
} from '../support/checkpoints.js';

describe('hostile layers', () => {
  const bytesOf = (array: ArrayBufferView) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  const int = (...values: number[]): SourceTensor => ({
    dtype: 'I32',
    shape: values.length === 1 ? [] : [values.length],
    bytes: bytesOf(Int32Array.from(values)),
  });
  const long = (...values: bigint[]): SourceTensor => ({
    dtype: 'I64',
    shape: [values.length],
    bytes: bytesOf(BigInt64Array.from(values)),
  });
  const text = (value: string): SourceTensor => ({ dtype: 'U8', shape: [value.length], bytes: Buffer.from(value) });
  const flag = (value: number): SourceTensor => ({ dtype: 'BOOL', shape: [], bytes: Uint8Array.of(value) });
  const sound: Source = {
    'l.W_q': { dtype: 'U8', shape: [4, 64], bytes: Uint8Array.from({ length: 256 }, (_, i) => i) },
    'l.scale': tensorOf(new Array(8).fill(0.5), [8, 1], 'float16'),
    'l.zero': tensorOf([1, 2, 3, 4, 5, 6, 7, 8], [8, 1], 'float16'),
    'l.shape': long(8n, 64n),
    'l.nbits': int(4),
    'l.group_size': int(64),
    'l.axis': int(1),
    'l.packing': text('4bit_u8'),
  };
  const open = async (changes: Record<string, SourceTensor | undefined>) => {
    const file = freshPath('l.safetensors');
    const entries = Object.entries({ ...sound, ...changes }).filter(
      (entry): entry is [string, SourceTensor] => entry[1] !== undefined,
    );
    fs.writeFileSync(file, encode(Object.fromEntries(entries)));
    return openModel(file);
  };

  it('variants that Python tolerates are read', async () => {
    const reference = await open({});
    const want = reference.tensor('l');
    expect(want[0]).toBe(-0.5);
    const variants: Record<string, SourceTensor | undefined>[] = [
      { 'l.nbits': long(4n), 'l.axis': { ...long(1n), shape: [1] } },
      { 'l.shape': int(8, 64), 'l.view_as_float': flag(0), 'l.quant_scale': flag(0) },
      { 'l.W_q': { dtype: 'F16', shape: [4, 32], bytes: sound['l.W_q']!.bytes }, 'l.view_as_float': flag(1) },
      { 'l.compute_dtype': text('torch.bfloat16'), 'l.optimize': flag(1), 'l.encoded_state_dict': flag(1) },
      {
        'l.scale': tensorOf(new Array(8).fill(0.5), [8, 1]),
        'l.zero': tensorOf([1, 2, 3, 4, 5, 6, 7, 8], [8, 1], 'bfloat16'),
      },
    ];
    for (const variant of variants) {
      const model = await open(variant);
      expect(model.tensor('l.weight')).toEqual(want);
      await model.close();
    }
    const two = { 'l.packing': text('2bit_u8'), 'l.W_q': { dtype: 'U8', shape: [2, 64], bytes: new Uint8Array(128) } };
    for (const nbits of [int(1), { dtype: 'F32', shape: [], bytes: bytesOf(Float32Array.of(1.58)) }]) {
      const model = await open({ ...two, 'l.nbits': nbits });
      expect(model.quantized('l').nbits).toBe(1.58);
      await model.close();
    }
    await reference.close();
  });

  it.each<[Record<string, SourceTensor | undefined>, RegExp]>([
    [{ 'l.scale': undefined, 'l.axis': undefined }, /"l" has W_q but no scale, axis/],
    [{ 'l.nbits': int(7) }, /nbits 7, which 4bit_u8 does not hold/],
    [{ 'l.nbits': int(8) }, /nbits 8, which 4bit_u8 does not hold/],
    [{ 'l.packing': text('5bit_u8') }, /packing "5bit_u8", where one of 8bit_u8/],
    [{ 'l.packing': text('3bit_32'), 'l.nbits': int(3) }, /W_q, where I32 \[1, 64\] is needed/],
    [{ 'l.axis': int(2) }, /axis 2, where 0 or 1/],
    [{ 'l.axis': int(0) }, /scale, where a floating-point \[1, 8\]/],
    [{ 'l.group_size': int(48) }, /group_size 48, which does not divide 8 x 64/],
    [{ 'l.group_size': int(0) }, /group_size 0/],
    [{ 'l.group_size': int(-64) }, /group_size -64/],
    [{ 'l.shape': long(8n) }, /shape \[8\], where two/],
    [{ 'l.shape': long(-8n, -64n) }, /shape \[-8, -64\]/],
    [{ 'l.shape': long(1n << 40n, 1n << 40n) }, /shape \[1099511627776, 1099511627776\]/],
    [{ 'l.shape': long(16n, 64n) }, /scale, where a floating-point \[16, 1\]/],
    [{ 'l.scale': tensorOf(new Array(8).fill(0), [8], 'float16') }, /F16 \[8\] as scale/],
    [{ 'l.zero': { dtype: 'U8', shape: [8, 1], bytes: new Uint8Array(8) } }, /U8 \[8, 1\] as zero/],
    [{ 'l.bias': tensorOf([1, 2, 3], [3]) }, /F32 \[3\] as bias, where a floating-point \[8\]/],
    [{ 'l.quant_scale': flag(1) }, /has quant_scale 1 and no scale_q/],
    [{ 'l.offload_meta': flag(1) }, /offload_meta/],
    [{ 'l.compute_dtype': text('__import__("os").system("x")') }, /compute_dtype "__import__/],
    [
      { 'l.packing': { dtype: 'U8', shape: [500], bytes: new Uint8Array(500) } },
      /"l.packing" of a quantized layer to be a number or a word, got U8 \[500\]/,
    ],
    [{ 'l.nbits': tensorOf([4], [1], 'float16') }, /"l.nbits" of a quantized layer to be a number/],
    [{ 'l.weight': randomTensor([8, 64], 1) }, /both a weight and codes/],
    [{ 'l.W_q': { dtype: 'F16', shape: [4, 32], bytes: new Uint8Array(256) } }, /F16 \[4, 32\] as W_q/],
  ])('%# is refused', async (changes, message) => {
    const error = await failure(() => open(changes));
    expect(error.message).toMatch(message);
    expect(error.code).toBe('ERR_CHECKPOINT_FORMAT');
    expect(error.message).toMatch(/^\/.*\/l\.safetensors: .*\.$/);
  });
});
