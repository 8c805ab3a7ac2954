import type { ModelReport } from '../../lib/models/report.js';
import { llama, modelFolder, numbersOf, randomTensor, tensorOf } from './checkpoints.js';

/** A report without what differs from run to run. */
export function timeless(report: ModelReport): unknown {
  return JSON.parse(
    JSON.stringify(report, (key, value: unknown) => (/seconds$|^output$/i.test(key) ? undefined : value)),
  );
}

/** Three shards: ordinary layers, one that float16 does not hold, one of weights stored [in, out]. */
export function threeShards(seed = 5): string {
  const tiny = tensorOf(
    numbersOf(randomTensor([64, 64], seed)).map((w) => w * 1e-7),
    [64, 64],
  );
  return modelFolder(
    [
      llama('bfloat16'),
      { 'tiny.weight': tiny, 'tiny.bias': randomTensor([64], 9), 'x.norm.weight': randomTensor([64], 2) },
      { 'h.0.wide.weight': randomTensor([64, 192], 3), 'h.0.wide.bias': randomTensor([192], 4, 'float16') },
    ],
    {
      config: '{\n  "model_type": "of no known class"\n}\n',
      files: { 'tokenizer.json': '{}', 'sub/more.txt': 'more' },
    },
  );
}
