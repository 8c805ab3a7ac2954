import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { availableBackends, openBackend } from '../../lib/backend/index.js';
import { blockType } from '../../lib/matrix/block-types.js';
import '../../lib/schemes/ggml/scheme.js'; // which brings the operations in JavaScript

// The examples of docs/format.md.

const PAGE = readFileSync(new URL('../../docs/format.md', import.meta.url), 'utf8');
const [BLOCK, SCALES] = [...PAGE.slice(PAGE.indexOf('## A GGUF file')).matchAll(/^ {4}((?:[0-9a-f]{2} ?)+)$/gm)].map(
  ([, text]) => Buffer.from(text!.replaceAll(' ', ''), 'hex'),
);
const CODES = [3, 10, 1, 8, 15, 6, 13, 4, 11, 2, 9, 0, 7, 14, 5, 12];

function decode(backend: ReturnType<typeof availableBackends>[number], name: string, blocks: Uint8Array): number[] {
  const type = blockType(name)!;
  expect(blocks.length).toBe(type.bytes);
  const out = new Float32Array(type.weights);
  openBackend(backend).run('decodeBlocks', { type: type.id, blocks: new Uint8Array(blocks), out, threads: 1 });
  return [...out];
}

it.each(availableBackends())('a block of Q4_1 and scales of Q4_K mean what the page says: %s', (backend) => {
  expect(decode(backend, 'Q4_1', BLOCK!)).toEqual([...CODES, ...CODES].map((code) => 0.5 * code - 3.75));
  const [scales, minima] = [
    [1, 2, 3, 4, 33, 34, 35, 36],
    [5, 6, 7, 8, 37, 38, 39, 63],
  ];
  const one = Buffer.from('003c003c', 'hex');
  const values = decode(backend, 'Q4_K', Buffer.concat([one, SCALES!, Buffer.alloc(128, 0x11)]));
  expect(values.filter((_, i) => i % 32 === 0)).toEqual(scales!.map((scale, i) => scale - minima![i]!));
});
