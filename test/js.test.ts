import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { runInNewContext } from 'node:vm';
import { describe, expect, expectTypeOf, test } from 'vitest';
import { availableBackends } from '../lib/backend/index.js';
import type * as node from '../lib/compute/host.js';
import type * as portable from '../lib/compute/host-js.js';
import * as hqq from '../lib/index.js';
import type * as js from '../lib/js.js';
import { digests } from './conformance/digests.mjs';

const read = (file: string) => readFileSync(fileURLToPath(new URL(`../dist/${file}`, import.meta.url)), 'utf8');

/** What every browser, Deno and Bun have beside the language itself, and hqq/js may use. */
const WEB = { performance, MessageChannel, AbortSignal };

/** dist/js.cjs where there is nothing else. */
function load(): typeof js {
  const exports = {};
  runInNewContext(read('js.cjs'), { ...WEB, exports, module: { exports } });
  return exports as typeof js;
}

describe('hqq/js', () => {
  test('exports what needs no files', () => {
    const names = Object.keys(load()).filter((name) => name !== '__esModule');
    const files = [
      'compareModels',
      'createWorker',
      'dequantizeModel',
      'loadTensors',
      'openModel',
      'quantizeModel',
      'saveTensors',
    ];
    expect(names.sort()).toEqual(
      Object.keys(hqq)
        .filter((name) => !files.includes(name))
        .sort(),
    );
  });

  test.each(['js.mjs', 'js.cjs'])('%s names nothing of Node', (file) => {
    const code = read(file).replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*/g, '');
    expect(code).not.toMatch(/\bnode:|\brequire\(|\bimport\b|\bprocess\b|\bBuffer\b|\bglobal\b|__dirname|__filename/);
  });

  test('computes in an engine without Node the bytes that this package computes here, blocking or not', async () => {
    const portableDigests = await digests(load());
    expect(Object.keys(portableDigests).length).toBeGreaterThan(20);
    expect(portableDigests).toEqual(await digests(hqq));
    expect(availableBackends()).toContain(hqq.backend().isa);
  });

  test('says that it is JavaScript, on one thread', () => {
    expect(load().backend()).toEqual({ name: 'js', isa: 'js', threads: 1 });
  });

  test('checks as the package does', () => {
    const { quantizeSync } = load();
    const weight = { data: new Float32Array(8), dtype: 'float32', shape: [2, 4] } as const;
    expect(() => quantizeSync(weight, { nbits: 7 as 8 })).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_OPTION' }),
    );
    expect(() => quantizeSync({ ...weight, data: [] as never })).toThrow('Expected weight.data to be a Float32Array');
  });

  test('stands where the parts that know Node stand', () => {
    expectTypeOf<typeof portable.activeBackend>().toExtend<typeof node.activeBackend>();
    expectTypeOf<typeof portable.backend>().toExtend<typeof node.backend>();
    expectTypeOf<typeof portable.defaultThreads>().toExtend<typeof node.defaultThreads>();
    expectTypeOf<typeof portable.markAsUntransferable>().toExtend<typeof node.markAsUntransferable>();
    expectTypeOf<keyof typeof portable>().toEqualTypeOf<keyof typeof node>();
  });
});
