import { describe, expect, test } from 'vitest';
import { checkpoint } from './fuzz/checkpoint.js';
import { config } from './fuzz/config.js';
import { engines } from './fuzz/engines.js';
import { gguf } from './fuzz/gguf.js';
import { safetensors } from './fuzz/safetensors.js';

// A few inputs of every fuzzer, the same in every run: that they work, accept some and refuse some. `npm run fuzz` tries more.

describe.each([
  [safetensors, 3000],
  [gguf, 2000],
  [config, 3000],
  [engines, 2000],
  [checkpoint, 60],
])('$name', (target, count) => {
  test('finds nothing, and both accepts and refuses', async () => {
    let accepted = 0;
    for (let input = 0; input < count; input++) accepted += (await target.tryOne(1, input)) ? 1 : 0;
    expect(accepted).toBeGreaterThan(count / 20);
    expect(accepted).toBeLessThan(count - count / 20);
  });

  test('an input is the same again', async () => {
    const outcomes = async () => {
      const list: boolean[] = [];
      for (let input = 100; input < 130; input++) list.push(await target.tryOne(7, input));
      return list;
    };
    expect(await outcomes()).toEqual(await outcomes());
  });
});
