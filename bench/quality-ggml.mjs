// ggml's types on a whole language model: what its own quantizer makes of the layers, decoded to floats, in a folder that our runtime runs.
import { closeSync, copyFileSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { openModel } from 'hqq';
import { openBlockSource } from 'hqq/runtime';

/** A superblock of the K types. */
const BLOCK = 256;

/** The K types that are tried. */
export const GGML_TYPES = ['Q4_K', 'Q3_K', 'Q2_K'];

const gcd = (a, b) => (b === 0 ? a : gcd(b, a % b));

/** A matrix as ggml's type holds it: as many rows as make whole superblocks are taken as one. */
function quantized(ggml, type, weights, columns, importance) {
  const width = (columns * BLOCK) / gcd(columns, BLOCK);
  const wide = importance && Float32Array.from({ length: width }, (_, i) => importance[i % columns]);
  const { blocks } = ggml.quantize(type, width, weights, wide);
  return { bytes: blocks.length, decoded: ggml.decode(type, blocks) };
}

/** Writes the model with its blocks' layers as ggml's type holds them. Gives the bits that a weight of those takes. */
export async function writeGgmlModel(ggml, type, from, to, importance) {
  const model = await openModel(from);
  const header = {};
  let offset = 0;
  for (const { name, shape } of model.tensors) {
    const bytes = 4 * shape.reduce((count, size) => count * size, 1);
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, (offset += bytes)] };
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const file = openSync(join(to, 'model.safetensors'), 'w');
  let [bits, weights] = [0, 0];
  try {
    writeSync(file, Buffer.concat([length, json]));
    for (const { name, shape } of model.tensors) {
      let values = await model.load(name);
      if (/\.layers\..*_proj\.weight$/.test(name)) {
        const shares = importance?.get(name.replace(/\.weight$/, ''));
        const { bytes, decoded } = quantized(ggml, type, values, shape[1], shares);
        bits += 8 * bytes;
        weights += values.length;
        values = decoded;
      }
      writeSync(file, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    }
  } finally {
    closeSync(file);
    await model.close();
  }
  copyFileSync(join(from, 'config.json'), join(to, 'config.json'));
  return bits / weights;
}

/** An importance matrix of a text: mean squares of what goes into each layer where the model reads it in windows, by module. */
export async function importanceOf(folder, ids, window) {
  const source = await openBlockSource(folder);
  const found = new Map();
  const tap = ({ module, rows, x }) => {
    const width = x.length / rows;
    const own = found.get(module) ?? { sums: new Float64Array(width), rows: 0 };
    for (let i = 0; i < x.length; i++) own.sums[i % width] += x[i] * x[i];
    own.rows += rows;
    found.set(module, own);
  };
  const texts = [];
  for (let at = 0; at < ids.length; at += window) texts.push(await source.embed(ids.slice(at, at + window)));
  for await (const block of source.blocks()) await block.forward(texts, { out: texts, tap });
  await source.close();
  return new Map([...found].map(([module, { sums, rows }]) => [module, Float32Array.from(sums, (sum) => sum / rows)]));
}
