// Quantizes a folder for sweep.py, each way that it names, and gives it the reports: JSON in, JSON out, line by line.
import { createInterface } from 'node:readline';
import { dequantizeModel, quantizeModel } from '../../dist/index.mjs';

for await (const line of createInterface({ input: process.stdin })) {
  const { input, output, dense, options } = JSON.parse(line);
  let answer;
  try {
    const { tensors, dense: stays, notes, totals } = await quantizeModel(input, output, options);
    if (dense !== undefined) await dequantizeModel(output, dense, { dtype: 'float32' });
    answer = { tensors: tensors.map(({ name }) => name), dense: stays, notes, weights: totals.weights };
  } catch (error) {
    answer = { error: String(error?.message ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
