import { block, floats, graph, model, node, number, tensor, value } from '../../interop/onnxruntime/graph.mjs';
import { piecesOf } from '../../lib/containers/onnx/encode.js';
import { OnnxGraph } from '../../lib/containers/onnx/graph.js';
import { codeNodes } from '../../lib/containers/onnx/restore.js';
import { scanSteps } from '../../lib/containers/onnx/scan.js';
import { weightOf } from '../../lib/containers/onnx/weights.js';
import { WireReader } from '../../lib/containers/onnx/wire.js';
import { atOnce } from '../../lib/files/event-loop.js';
import { attempt, demand, type Target } from './outcome.js';
import { damage, Random } from './random.js';

// ONNX files, sound and damaged. What is accepted has its tensors inside the file, apart, and is written again byte for byte; a file
// that was not damaged is accepted.

const OPERATORS = ['MatMul', 'Gemm', 'Gather', 'Identity', 'Transpose', 'Cast', 'Add', 'Reshape'];

/** A graph of few nodes, whose values are read by chance; each is made once. */
function makeGraph(random: Random, depth: number, stem: string): Buffer {
  const names = Array.from({ length: 1 + random.below(4) }, (_, i) => `${stem}w${i}`);
  const tensors = names.map((name) => {
    const shape = [1 + random.below(3), 1 + random.below(3)];
    const data = new Float32Array(shape[0]! * shape[1]!);
    return random.chance(70)
      ? floats(name, shape, data)
      : tensor(name, 'float32', shape, data, random.chance(50) ? 'float_data' : 'raw');
  });
  const values = [...names, 'x', ''];
  const nodes = Array.from({ length: random.below(6) }, (_, i) => {
    const output = `${stem}v${i}`;
    const inputs = Array.from({ length: random.below(4) }, () => random.pick(values));
    values.push(output);
    if (depth > 0 && random.chance(20))
      return node('If', inputs, [output], { then_branch: { graph: makeGraph(random, depth - 1, `${output}.`) } });
    if (random.chance(10))
      return node('Constant', [], [output], { value: { tensor: floats('', [2, 2], new Float32Array(4)) } });
    if (random.chance(20)) {
      const domain = 'com.microsoft';
      const attributes = { K: 32, N: 2, bits: 4, block_size: 16 };
      return node(random.pick(['MatMulNBits', 'GatherBlockQuantized']), inputs, [output], attributes, { domain });
    }
    return node(
      random.pick(OPERATORS),
      inputs,
      [output],
      random.chance(30) ? { perm: [1, 0], transB: 1, axis: 0 } : {},
    );
  });
  return graph({ nodes, tensors, outputs: [value(random.pick(values), 'float32', [1, 'n'])] });
}

export const onnx: Target = {
  name: 'onnx',
  quick: 10_000,
  full: 1_000_000,
  tryOne(seed, input) {
    const random = new Random(seed, input);
    const more = random.chance(30)
      ? Buffer.concat([block(14, 'meta'), number(900, random.below(1000))])
      : Buffer.alloc(0);
    const sound = model(makeGraph(random, 2, ''), { more });
    let file: Buffer = random.chance(70) ? Buffer.from(damage(random, sound)) : sound;
    if (random.chance(5)) file = file.subarray(0, random.below(file.length + 1));
    const found = attempt(['ERR_CHECKPOINT_FORMAT'], () => {
      const message = atOnce(scanSteps(new WireReader('x.onnx', file), 'x.onnx'));
      const index = atOnce(OnnxGraph.index(message, 'x.onnx'));
      for (const scope of index.scopes) for (const one of scope.tensors.values()) weightOf(index, scope, one);
      codeNodes(index);
      return { message, index };
    });
    if (found === undefined) {
      demand(!file.equals(sound), 'refused a sound file');
      return false;
    }
    const { message, index } = found;
    let end = 0;
    for (const { hole } of [...index.tensors.values()].sort((a, b) => (a.hole?.begin ?? 0) - (b.hole?.begin ?? 0))) {
      if (hole === undefined) continue;
      demand(hole.begin >= end && hole.end >= hole.begin && hole.end <= file.length, 'tensors overlap, or lie outside');
      end = hole.end;
    }
    if (!file.equals(sound)) return true; // numbers that are spelt longer than they need to be become shorter
    const again = [...piecesOf(message)].map((piece) =>
      piece instanceof Uint8Array ? piece : file.subarray(piece.begin, piece.end),
    );
    demand(Buffer.concat(again).equals(file), 'is not written again byte for byte');
    return true;
  },
};
