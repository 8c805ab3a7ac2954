import type { FloatBits } from '../../binding.js';
import type { OwnedFloat32Array } from '../matrix/arrays.js';
import { allocate, DTYPES, type DType } from '../matrix/dtype.js';
import type { RunOptions } from '../matrix/weight.js';
import { bitsOf } from './floats.js';
import { activeBackend } from './host.js';
import { resolveThreads, runTask } from './run.js';

// Numbers on their way to and from the disk, on other threads. Who only computes does not read it.

/** `widenBytes` on other threads. */
export async function widenBytesLater(
  bytes: Uint8Array,
  dtype: DType,
  to: Float32Array,
  run: RunOptions = {},
): Promise<void> {
  await convertLater(bitsOf(bytes, dtype), dtype, to, 'float32', run);
}

/** `roundThrough` on other threads, in place. */
export async function roundThroughLater(
  values: OwnedFloat32Array,
  dtype: DType,
  run: RunOptions,
): Promise<OwnedFloat32Array> {
  if (dtype === 'float32') return values;
  const bits = allocate(dtype, values.length);
  await convertLater(values, 'float32', bits, dtype, run);
  await convertLater(bits, dtype, values, 'float32', run);
  return values;
}

async function convertLater(
  from: FloatBits,
  fromDtype: DType,
  to: FloatBits,
  toDtype: DType,
  run: RunOptions,
): Promise<void> {
  const [fromId, toId] = [DTYPES[fromDtype].id, DTYPES[toDtype].id];
  const args = { from, fromDtype: fromId, to, toDtype: toId, threads: resolveThreads(run.threads) };
  await runTask(activeBackend(), 'convert', args, run);
}
