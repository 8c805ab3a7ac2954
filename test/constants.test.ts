import { expect, test } from 'vitest';
import type { Constants } from '../binding.js';
import { loadAddon } from '../lib/backend/native/load.js';
import * as constants from '../lib/matrix/constants.js';
import { DTYPE_NAMES, DTYPES } from '../lib/matrix/dtype.js';
import { FORMATS } from '../lib/matrix/format.js';
import { SOLVERS, ZERO_KINDS } from '../lib/solvers/solvers.js';

// What both languages are built on, each by itself. A number that is in one alone does not compile, or is not equal.

const OURS: Constants = {
  lanes: constants.LANES,
  blockGroups: constants.BLOCK_GROUPS,
  panel: constants.PANEL,
  quadBytes: constants.QUAD_BYTES,
  inputSegment: constants.INPUT_SEGMENT,
  keyStrip: constants.KEY_STRIP,
  distanceTile: constants.DISTANCE_TILE,
  cacheGroup: constants.CACHE_GROUP,
  cacheTypes: constants.CACHE_TYPES,
  formats: FORMATS.map(({ codeBits, wordBytes, fields, panel }) => ({ codeBits, wordBytes, fields, panel })),
  dtypes: DTYPE_NAMES.map((name) => ({ name, bytes: DTYPES[name].bytes })),
  solvers: SOLVERS,
  zeroKinds: ZERO_KINDS,
  limits: {
    group: constants.LONGEST_GROUP,
    threads: constants.MAX_THREADS,
    sideBySide: constants.SIDE_BY_SIDE,
    iterations: constants.MAX_ITERATIONS,
  },
};

const { addon } = loadAddon();

test.runIf(addon)('the addon is built on the numbers that lib/ is built on', () => {
  expect(addon!.constants).toEqual(OURS);
});

test.runIf(addon)('nobody can change what the addon says', () => {
  const thawed: string[] = [];
  const visit = (value: unknown, path: string) => {
    if (typeof value !== 'object' || value === null) return;
    if (!Object.isFrozen(value)) thawed.push(path);
    for (const [name, part] of Object.entries(value)) visit(part, `${path}.${name}`);
  };
  visit(addon!.constants, 'constants');
  expect(thawed).toEqual([]);
});

test('ids are places in their lists', () => {
  expect(FORMATS.map(({ id }) => id)).toEqual([...FORMATS.keys()]);
  expect(DTYPE_NAMES.map((name) => DTYPES[name].id)).toEqual([...DTYPE_NAMES.keys()]);
});

// Of each format alone; native/core/formats.h asserts the same when it is compiled.
test.each(FORMATS)('$packing: pieces make whole codes, and none lies over another', ({ codeBits, panel }) => {
  const pieces = panel.quads.map(({ length }) => length);
  expect(pieces).toEqual([...pieces].sort()); // lib/backend/js/products.ts reads quads of one piece first
  const taken = new Uint8Array(panel.vectors);
  for (const pieces of panel.quads) {
    let code = 0;
    for (const { vector, shift, mask } of pieces) {
      expect(mask << shift).toBeLessThanOrEqual(255);
      expect([code & mask, taken[vector]! & (mask << shift)]).toEqual([0, 0]);
      code |= mask;
      taken[vector] = taken[vector]! | (mask << shift);
    }
    expect(code).toBe((1 << codeBits) - 1);
  }
});
