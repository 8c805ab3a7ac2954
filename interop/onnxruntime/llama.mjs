// A Llama as an ONNX graph, with a cache, as transformers.js wants its inputs and outputs. Weights come from a folder of Hugging Face.
import { openModel } from '../../dist/index.mjs';
import { floats, graph, model, node, tensor, value } from './graph.mjs';

/** The bytes of an ONNX file of the Llama in `folder`, and its configuration. */
export async function llamaGraph(folder) {
  const source = await openModel(folder);
  const { config } = source;
  const [hidden, heads, layers] = [config.hidden_size, config.num_attention_heads, config.num_hidden_layers];
  const kv = config.num_key_value_heads ?? heads;
  const [size, rep] = [hidden / heads, heads / kv];
  const [nodes, tensors] = [[], []];
  let count = 0;
  const emit = (op, inputs, attributes = {}, name = '', output = `v${count++}`) => {
    nodes.push(node(op, inputs, [output], attributes, { name }));
    return output;
  };
  const ints = (...list) => {
    const name = `i${count++}`;
    tensors.push(tensor(name, 'int64', [list.length], BigInt64Array.from(list.map(BigInt))));
    return name;
  };
  const number = (...list) => {
    const name = `f${count++}`;
    tensors.push(floats(name, list.length === 1 ? [] : [list.length], Float32Array.from(list)));
    return name;
  };
  const read = (name) => source.tensor(name);
  const weight = (name, [rows, cols]) => {
    tensors.push(floats(name, [rows, cols], read(name)));
    return name;
  };
  /** x times a weight, stored turned as exporters have it. */
  const linear = (x, module, outs, ins) => {
    const [data, turned] = [read(`${module}.weight`), new Float32Array(outs * ins)];
    for (let i = 0; i < outs; i++) for (let j = 0; j < ins; j++) turned[j * outs + i] = data[i * ins + j];
    tensors.push(floats(`onnx::MatMul_${module}`, [ins, outs], turned));
    return emit('MatMul', [x, `onnx::MatMul_${module}`], {}, `/${module.replaceAll('.', '/')}/MatMul`);
  };
  const norm = (x, module) => {
    tensors.push(floats(`${module}.weight`, [hidden], read(`${module}.weight`)));
    const mean = emit('ReduceMean', [emit('Mul', [x, x])], { axes: [-1], keepdims: 1 });
    const root = emit('Sqrt', [emit('Add', [mean, number(config.rms_norm_eps)])]);
    return emit('Mul', [emit('Div', [x, root]), `${module}.weight`]);
  };
  const split = (x, count) =>
    emit('Transpose', [emit('Reshape', [x, ints(0, 0, count, size)])], { perm: [0, 2, 1, 3] });

  const theta = config.rope_theta ?? 10000;
  const turns = number(...Array.from({ length: size / 2 }, (_, i) => theta ** ((-2 * i) / size)));
  const positions = emit('Unsqueeze', [emit('Cast', ['position_ids'], { to: 1 }), ints(1, 3)]); // [b, 1, s, 1]
  const angle = emit('Mul', [positions, turns]);
  const angles = emit('Concat', [angle, angle], { axis: 3 });
  const [cos, sin] = [emit('Cos', [angles]), emit('Sin', [angles])];
  const rope = (x) => {
    const part = (from, to) => emit('Slice', [x, ints(from), ints(to), ints(3)]);
    const half = emit('Concat', [emit('Neg', [part(size / 2, size)]), part(0, size / 2)], { axis: 3 });
    return emit('Add', [emit('Mul', [x, cos]), emit('Mul', [half, sin])]);
  };
  // A token sees those that stand no later than it does.
  const total = emit('Gather', [emit('Shape', ['attention_mask']), ints(1)]);
  const [zero, one] = ['zero', 'one'];
  tensors.push(tensor(zero, 'int64', [], BigInt64Array.of(0n)), tensor(one, 'int64', [], BigInt64Array.of(1n)));
  const range = emit('Range', [zero, emit('Squeeze', [total, ints(0)]), one]);
  const later = emit('Greater', [range, emit('Unsqueeze', ['position_ids', ints(1, 2, 4)])]); // [b, 1, 1, s, total]
  const mask = emit('Where', [later, number(-1e9), number(0)]);

  const embed = weight('model.embed_tokens.weight', [config.vocab_size, hidden]);
  let x = emit('Gather', [embed, 'input_ids'], {}, '/model/embed_tokens/Gather');
  const [inputs, outputs] = [[], []];
  for (let layer = 0; layer < layers; layer++) {
    const at = `model.layers.${layer}`;
    const h = norm(x, `${at}.input_layernorm`);
    const q = rope(split(linear(h, `${at}.self_attn.q_proj`, hidden, hidden), heads));
    const news = [
      rope(split(linear(h, `${at}.self_attn.k_proj`, kv * size, hidden), kv)),
      split(linear(h, `${at}.self_attn.v_proj`, kv * size, hidden), kv),
    ];
    const [k, v] = ['key', 'value'].map((name, i) => {
      const past = `past_key_values.${layer}.${name}`;
      inputs.push(value(past, 'float32', ['batch', kv, 'past', size]));
      outputs.push(value(`present.${layer}.${name}`, 'float32', ['batch', kv, 'all', size]));
      return emit('Concat', [past, news[i]], { axis: 2 }, '', `present.${layer}.${name}`);
    });
    const grouped = emit('Reshape', [q, ints(0, kv, rep, -1, size)]);
    const keys = emit('Transpose', [emit('Unsqueeze', [k, ints(2)])], { perm: [0, 1, 2, 4, 3] });
    const scores = emit('Mul', [emit('MatMul', [grouped, keys]), number(size ** -0.5)]);
    const shares = emit('Softmax', [emit('Add', [scores, mask])], { axis: -1 });
    const seen = emit('MatMul', [shares, emit('Unsqueeze', [v, ints(2)])]);
    const joined = emit('Transpose', [emit('Reshape', [seen, ints(0, heads, -1, size)])], { perm: [0, 2, 1, 3] });
    const attended = emit('Reshape', [joined, ints(0, 0, hidden)]);
    x = emit('Add', [x, linear(attended, `${at}.self_attn.o_proj`, hidden, hidden)]);
    const m = norm(x, `${at}.post_attention_layernorm`);
    const wide = config.intermediate_size;
    const gate = linear(m, `${at}.mlp.gate_proj`, wide, hidden);
    const silu = emit('Mul', [gate, emit('Sigmoid', [gate])]);
    const up = emit('Mul', [silu, linear(m, `${at}.mlp.up_proj`, wide, hidden)]);
    x = emit('Add', [x, linear(up, `${at}.mlp.down_proj`, hidden, wide)]);
  }
  const last = norm(x, 'model.norm');
  const tied = !source.has('lm_head');
  const head = tied ? embed : weight('lm_head.weight', [config.vocab_size, hidden]);
  emit('MatMul', [last, emit('Transpose', [head])], {}, '/lm_head/MatMul', 'logits');
  const ids = (name, ...shape) => value(name, 'int64', shape);
  const bytes = model(
    graph({
      nodes,
      tensors,
      inputs: [
        ids('input_ids', 'batch', 's'),
        ids('attention_mask', 'batch', 'all'),
        ids('position_ids', 'batch', 's'),
        ...inputs,
      ],
      outputs: [value('logits', 'float32', ['batch', 's', config.vocab_size]), ...outputs],
    }),
    { opset: 17 },
  );
  await source.close();
  return { bytes, config };
}

/** What a session gives for ids, all at once: `[ids, vocabulary]`. */
export async function logitsOf(ort, session, config, ids) {
  const kv = config.num_key_value_heads ?? config.num_attention_heads;
  const list = (values) => new ort.Tensor('int64', BigInt64Array.from(values.map(BigInt)), [1, values.length]);
  const feeds = {
    input_ids: list(ids),
    attention_mask: list(ids.map(() => 1)),
    position_ids: list(ids.map((_, i) => i)),
  };
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    for (const name of ['key', 'value'])
      feeds[`past_key_values.${layer}.${name}`] = new ort.Tensor(
        ...['float32', new Float32Array(0), [1, kv, 0, config.hidden_size / config.num_attention_heads]],
      );
  }
  return (await session.run(feeds, ['logits'])).logits.data;
}

/** Mean negative log likelihood of each next id. */
export function lossOf(logits, ids, vocabulary) {
  let loss = 0;
  for (let i = 0; i + 1 < ids.length; i++) {
    const row = logits.subarray(i * vocabulary, (i + 1) * vocabulary);
    const most = row.reduce((a, b) => Math.max(a, b), -Infinity);
    loss += most + Math.log(row.reduce((sum, one) => sum + Math.exp(one - most), 0)) - row[ids[i + 1]];
  }
  return loss / (ids.length - 1);
}

/** Mean Kullback-Leibler divergence of what logits say of each next id from what exact ones say. */
export function divergenceOf(exact, logits, vocabulary) {
  let sum = 0;
  for (let at = 0; at < exact.length; at += vocabulary) {
    const [p, q] = [exact, logits].map((all) => {
      const row = all.subarray(at, at + vocabulary);
      const most = row.reduce((a, b) => Math.max(a, b), -Infinity);
      const log = most + Math.log(row.reduce((total, one) => total + Math.exp(one - most), 0));
      return (i) => row[i] - log;
    });
    for (let i = 0; i < vocabulary; i++) sum += Math.exp(p(i)) * (p(i) - q(i));
  }
  return (sum * vocabulary) / exact.length;
}
