import * as fs from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  block,
  floats,
  gaussian,
  graph,
  model,
  node,
  number,
  tensor,
  value,
  varint,
} from '../../interop/onnxruntime/graph.mjs';
import { openSource } from '../../lib/containers/list.js';
import { onnx } from '../../lib/containers/onnx/container.js';
import { expectError } from '../containers/helpers.js';
import { freshPath } from '../support/checkpoints.js';

const W = gaussian(64 * 64);
const OUT = [value('y', 'float32', [1, 64])];
const matMul = node('MatMul', ['x', 'w'], ['y'], {}, { name: 'm' });

function written(bytes: Uint8Array): string {
  const path = freshPath('model.onnx');
  fs.writeFileSync(path, bytes);
  return path;
}

const refuses = (bytes: Uint8Array, message: RegExp) =>
  expectError(() => openSource(written(bytes)), 'ERR_CHECKPOINT_FORMAT', message);
const of = (nodes: Buffer[], tensors: Buffer[]) => model(graph({ nodes, tensors, outputs: OUT }));

describe('an ONNX file', () => {
  it('is known by its content', async () => {
    const sound = of([matMul], [floats('w', [64, 64], W)]);
    const source = await openSource(written(sound));
    expect(source.container).toBe('onnx');
    expect(source.entries.get('w')).toMatchObject({ shape: [64, 64], type: { name: 'F32' } });
    await source.close();
    expect(onnx.begins(sound.subarray(0, 64), sound.length)).toBe(true);
    for (const text of ['{"a": 1}', 'GGUF', '\b\x08', 'PK\x03\x04', '\x08\x07\x13aaaa'])
      expect(onnx.begins(Buffer.from(text.padEnd(64, ' ')), 1000)).toBe(false);
  });

  it('is refused as what its name says, where its content says nothing', async () => {
    await refuses(Buffer.from('x\n'), /with one graph, got 0/);
  });

  it('is refused where a length leads out of its message', async () => {
    const sound = of([matMul], [floats('w', [64, 64], W)]);
    for (const length of [1, 100, sound.length - 20, sound.length - 1])
      await expect(openSource(written(sound.subarray(0, length)))).rejects.toThrow(/.+/);
    const tail = (bytes: Buffer) => Buffer.concat([number(1, 8), block(2, 'tests'), bytes]);
    await refuses(tail(Buffer.concat([varint((7 << 3) | 2), varint(2n ** 40n)])), /a field of at most 0 bytes/);
    await refuses(
      tail(Buffer.concat([varint((7 << 3) | 2), varint(2n ** 63n)])),
      /a field of at most 0 bytes.*Infinity/,
    );
    await refuses(tail(Buffer.from([0x3a, 0x80])), /ends within a number/);
    await refuses(tail(block(7, Buffer.from([0x3b]))), /wire type/);
    await refuses(tail(Buffer.alloc(0)), /with one graph, got 0/);
    await refuses(tail(block(7, Buffer.concat([block(1, block(5, block(6, block(5, varint(2n ** 35n)))))]))), /byte/);
  });

  it('is refused where graphs lie within graphs without an end', async () => {
    let inner = graph({ nodes: [], outputs: OUT });
    for (let i = 0; i < 40; i++)
      inner = graph({ nodes: [node('If', ['c'], [`o${i}`], { then_branch: { graph: inner } })], outputs: [] });
    await refuses(model(inner), /more than 16 deep/);
  });

  it('is refused where dimensions and bytes do not agree', async () => {
    await refuses(of([matMul], [floats('w', [64, 65], W)]), /"w" has 16384 bytes, where F32 \[64, 65\] takes 16640/);
    await refuses(of([matMul], [floats('w', [-64, 64], W)]), /dimensions \[-64, 64\]/);
    await refuses(of([matMul], [floats('w', [2 ** 50, 2 ** 50], W)]), /dimensions/);
    const twice = Buffer.concat([floats('w', [64, 64], W), block(9, Buffer.from(W.buffer))]);
    await refuses(of([matMul], [twice]), /numbers more than once/);
  });

  it('is refused where two things have one name, or a value is made of itself', async () => {
    await refuses(of([matMul], [floats('w', [64, 64], W), floats('w', [64, 64], W)]), /two nodes or tensors .* "w"/);
    await refuses(of([matMul, matMul], [floats('w', [64, 64], W)]), /two nodes or tensors .* "y"/);
    const ring = [node('Identity', ['a'], ['b']), node('Identity', ['b'], ['a']), node('MatMul', ['x', 'a'], ['y'])];
    const source = await openSource(written(of(ring, [floats('w', [64, 64], W)])));
    expect([...source.envelope.linears(source.entries)]).toMatchObject([{ reason: 'no node uses it' }]);
    await source.close();
  });

  it('takes nodes without inputs', async () => {
    const source = await openSource(
      written(
        of([node('MatMul', [], []), node('Gemm', ['x'], ['y']), node('Add', [], ['z'])], [floats('w', [64, 64], W)]),
      ),
    );
    expect([...source.envelope.linears(source.entries)]).toMatchObject([{ reason: 'no node uses it' }]);
    await source.close();
  });

  it('is refused where it would read a file elsewhere', async () => {
    const inOther = (how: Readonly<Record<string, string | number>>) =>
      of([matMul], [tensor('w', 'float32', [64, 64], W, { length: W.byteLength, ...how })]);
    for (const location of ['../w.bin', '/etc/passwd', 'a/../../w.bin', 'C:\\w.bin', '', 'a\0b'])
      await refuses(inOther({ location }), /path of a file in the folder/);
    await refuses(inOther({ location: 'missing.bin' }), /not there, or leads elsewhere/);
    await refuses(inOther({ location: 'w.bin', offset: '-1' }), /offset "-1"/);
    const path = written(inOther({ location: 'w.bin', offset: 64 }));
    const beside = join(dirname(path), 'w.bin');
    fs.symlinkSync('/etc/hostname', beside);
    await expectError(() => openSource(path), 'ERR_CHECKPOINT_FORMAT', /leads elsewhere/);
    fs.rmSync(beside);
    fs.writeFileSync(beside, new Uint8Array(W.byteLength));
    await expectError(() => openSource(path), 'ERR_CHECKPOINT_FORMAT', /ends at byte 16448, past the end of the file/);
  });

  it('is refused where tensors in another file overlap', async () => {
    const at = (name: string, offset: number) =>
      tensor(name, 'float32', [64, 64], W, { location: 'w.bin', offset, length: W.byteLength });
    const path = written(of([matMul], [at('w', 0), at('v', 64)]));
    fs.writeFileSync(join(dirname(path), 'w.bin'), new Uint8Array(2 * W.byteLength));
    await expectError(() => openSource(path), 'ERR_CHECKPOINT_FORMAT', /"w" and "v" overlap/);
  });
});
