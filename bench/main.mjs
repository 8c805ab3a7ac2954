// `npm run bench`: how fast this machine quantizes. Prints tables, or one JSON document with --json.
//
//   npm run bench                      everything (a few minutes; the checkpoint needs 3 GB of disk)
//   npm run bench -- solvers --write   docs/solvers.md anew, of what was measured (five minutes)
//   npm run bench -- solver-speeds --write   its column of speeds alone (half a minute)
//   npm run bench -- kernels           kernels | linear | decode | import | table | event-loop | checkpoint | quality | solvers | zeros |
//                                      importance | ggml | llama.cpp | onnx | tune
//   HQQ_TYPES=q4_k,q2_k npm run bench -- ggml   these types alone
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { llamaCppTables, onnxTables } from './engine-tables.mjs';
import { table } from './measure.mjs';
import { qualityTables } from './quality-table.mjs';
import { solversPage, withSpeeds } from './solvers-page.mjs';

const json = process.argv.includes('--json');
const write = process.argv.includes('--write');
const solvers = fileURLToPath(new URL('../docs/solvers.md', import.meta.url));
const wanted = process.argv.slice(2).filter((word) => !word.startsWith('-'));
const wants = (name) => wanted.length === 0 || wanted.includes(name);

function run(script, env = {}) {
  const path = fileURLToPath(new URL(script, import.meta.url));
  const options = {
    env: { ...process.env, ...env },
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    maxBuffer: 2 ** 26,
  };
  return JSON.parse(execFileSync(process.execPath, [path], options));
}

const isas = JSON.parse(
  execFileSync(process.execPath, [fileURLToPath(new URL('../dist/cli.mjs', import.meta.url)), 'doctor', '--json'], {
    encoding: 'utf8',
  }),
).runnable;
const results = { machine: { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version }, kernels: [] };
const say = (text) => json || console.log(text);
say(
  `${results.machine.cpu}, ${results.machine.cores} cores, Node ${results.machine.node}. Unit: a memcpy of the same matrix.\n`,
);

if (wants('kernels')) {
  const backends = [
    ...isas.map((isa) => ({ HQQ_BACKEND: 'native', HQQ_ISA: isa })),
    { HQQ_BACKEND: 'js', HQQ_ISA: '' },
  ];
  for (const env of backends) {
    const result = run('kernels.mjs', env);
    results.kernels.push(result);
    say(
      `${result.name}/${result.isa}, ${result.size} x ${result.size} float32, group 64, 1 thread (memcpy ${result.memcpyMs.toFixed(1)} ms)`,
    );
    say(
      table([
        ['', 'ms', 'x memcpy', 'middle half', 'M weights/s'],
        ...result.rows.map((row) => [
          row.name,
          row.ms.toFixed(1),
          row.ratio.toFixed(2),
          `${row.low.toFixed(2)}-${row.high.toFixed(2)}`,
          (row.weightsPerSecond / 1e6).toFixed(0),
        ]),
      ]),
    );
    say('');
  }
}
if (wants('tune')) {
  results.tune = isas.filter((isa) => isa !== 'scalar').map((isa) => run('tune.mjs', { HQQ_ISA: isa }));
  for (const { isa, threads, rows, layers, gflops, whole, step } of results.tune) {
    say(`A step of tuning a block of SmolLM2-135M, ${rows} rows, ${isa}, ${threads} threads, GFLOP/s`);
    const rates = ({ forward, backward }) => [forward.toFixed(1), backward.toFixed(1)];
    say(
      table([
        ['', 'product', 'gradients'],
        ...layers.map((layer) => [layer.name, ...rates(layer)]),
        ['all', ...rates(gflops)],
      ]),
    );
    const fake = `${step.ms.toFixed(1)} ms of it for codes, scales and zeros (${step.megaweights.toFixed(0)} M weights/s)`;
    say(`a step: ${whole.ms.toFixed(0)} ms, ${whole.gflops.toFixed(1)} GFLOP/s, ${fake}\n`);
  }
}

if (wants('linear')) {
  results.linear = isas
    .filter((isa) => isa !== 'scalar')
    .map((isa) => run('linear.mjs', { HQQ_BACKEND: 'native', HQQ_ISA: isa }));
  for (const { isa, threads, clock, onnxruntime, results: cases } of results.linear) {
    say(
      `QuantizedLinear, groups of 64, ${threads} thread(s), ${isa}, microseconds (${clock} clock) a call, middle halves beside;`,
    );
    say('the ratio is to "hqq 4-bit int8", or to "hqq 4-bit float32" where x is not rounded');
    say(
      onnxruntime
        ? `onnxruntime-node ${onnxruntime}`
        : 'onnxruntime-node is not installed, and left out: npm install --no-save --ignore-scripts onnxruntime-node',
    );
    const between = ({ low, high }, digits) => `${low.toFixed(digits)}-${high.toFixed(digits)}`;
    const line = ({ out, inFeatures, batch, cold }, { name, us, ratio, weightBytes }) => [
      ...[`${out} x ${inFeatures}, batch ${batch}${cold ? ', cold' : ''}`, name, us.median.toFixed(1), between(us, 1)],
      ...(ratio ? [ratio.median.toFixed(2), between(ratio, 2)] : ['', '']),
      ...[((2 * out * inFeatures * batch) / us.median / 1e3).toFixed(0), (weightBytes / us.median / 1e3).toFixed(1)],
    ];
    const lines = cases.flatMap((result) => result.rows.map((row) => line(result, row)));
    say(table([['', '', 'us', '', 'ratio', '', 'GFLOP/s', 'GB/s of weights'], ...lines]));
    say('');
  }
}
if (wants('decode')) {
  results.decode = run('decode.mjs');
  const { parameters, threads, isa, rows } = results.decode;
  say(
    `Decoding, a Llama of ${(parameters / 1e6).toFixed(0)} million parameters with a tied head in float32, ${threads} thread(s), ${isa}:`,
  );
  const percent = (share) => (100 * share).toFixed(0);
  const line = ({ name, context, ms, cpuMs, loopMs, linears, low, high, operations }) => {
    const attention = (operations.attention ?? 0) / cpuMs;
    return [
      `${name}, after ${context} tokens`,
      ms.toFixed(1),
      cpuMs.toFixed(1),
      loopMs.toFixed(2),
      percent(linears),
      `${percent(low)}-${percent(high)}`,
      percent(attention),
    ];
  };
  say(
    table([
      ['', 'ms a token', 'processor ms', "event loop's", '% in linears', 'middle half', '% in attention'],
      ...rows.map(line),
    ]),
  );
  say('');
}
if (wants('import')) {
  results.import = run('import.mjs');
  const { runs, rows } = results.import;
  say(`Importing, median of ${runs} fresh processes:`);
  const line = ({ name, format, ms, low, high, cpuMs }) => {
    return [`${name}, ${format}`, ms.toFixed(1), `${low.toFixed(1)}-${high.toFixed(1)}`, cpuMs.toFixed(1)];
  };
  say(table([['', 'ms', 'middle half', 'ms of processor time'], ...rows.map(line)]));
  say('');
}
if (wants('table')) {
  results.table = run('table.mjs');
  const { runs, rows } = results.table;
  say(`The table of architectures, median of ${runs} fresh processes each, in ms:`);
  const line = ({ name, ms, low, high }) => [name, ms.toFixed(1), `${low.toFixed(1)}-${high.toFixed(1)}`];
  say(table([['', 'ms', 'middle half'], ...rows.map(line)]));
  say('');
}
if (wants('solvers')) {
  results.solvers = run('solvers.mjs');
  const { rows, ggml } = results.solvers;
  say('Solvers, relative error of the weights, 1 thread');
  say(
    table([
      ['weights', 'solver', 'zeros', 'bits', 'group', 'bits per weight', 'error', 'M weights/s'],
      ...rows.map((row) => [
        ...[
          row.subject,
          row.solver + (row.metaBits === 8 ? ', bytes' : ''),
          row.zeroPoint,
          `${row.nbits}`,
          `${row.groupSize}`,
          row.bitsPerWeight.toFixed(2),
        ],
        ...[row.relativeError.toFixed(4), (row.weightsPerSecond / 1e6).toFixed(0)],
      ]),
      ...ggml.map((type) => [
        'gaussian',
        `ggml ${type.name}`,
        '',
        '',
        '',
        type.bitsPerWeight.toFixed(2),
        type.gaussian.toFixed(4),
        '',
      ]),
    ]),
  );
  say('');
  if (write) {
    writeFileSync(solvers, solversPage(results.solvers, results.machine.cpu));
    say(`Wrote ${solvers}.`);
  }
}
if (wanted.includes('solver-speeds')) {
  results.solverSpeeds = run('solvers.mjs', { HQQ_SPEEDS: '1' });
  const line = ({ subject, solver, zeroPoint, weightsPerSecond }) => [
    ...[subject, solver, zeroPoint, (weightsPerSecond / 1e6).toFixed(0)],
  ];
  say('Solvers, 4 bits in groups of 64, 1 thread');
  say(table([['weights', 'solver', 'zeros', 'M weights/s'], ...results.solverSpeeds.rows.map(line)]));
  if (write) {
    writeFileSync(solvers, withSpeeds(readFileSync(solvers, 'utf8'), results.solverSpeeds));
    say(`Wrote ${solvers}.`);
  }
}
if (wants('zeros')) {
  results.zeros = run('zeros.mjs');
  const { bits, groups, rows } = results.zeros;
  say(`Zeros, relative errors of ${groups} gaussian groups at ${bits} bits: of a dense search, and of joint`);
  const beside = { float: 'float', integer: 'float', symmetric: 'integer' };
  const line = ({ groupSize, zeroPoint, best, joint }) => {
    const other = rows.find((row) => row.groupSize === groupSize && row.zeroPoint === beside[zeroPoint]);
    return [
      ...[`${groupSize}, ${zeroPoint}`, best.toFixed(4), joint.toFixed(4), (joint / best).toFixed(4)],
      ...(other.zeroPoint === zeroPoint
        ? ['', '', '']
        : [other.zeroPoint, (best / other.best).toFixed(3), (joint / other.joint).toFixed(3)]),
    ];
  };
  say(table([['group, zeros', 'dense', 'joint', 'joint / dense', 'beside', 'dense', 'joint'], ...rows.map(line)]));
  say('');
}
if (wants('quality')) {
  results.quality = run('quality.mjs');
  for (const result of results.quality.results) for (const line of qualityTables(result)) say(line);
  for (const { name, missing } of results.quality.skipped) {
    say(`Skipped ${name}: there is no ${missing}. HQQ_MODELS says where the folder of models is.\n`);
  }
}
if (wants('importance')) {
  results.importance = run('importance.mjs');
  const { isa, threads, rows } = results.importance;
  say(`Importance from 2,048 tokens, random ones or its own (${isa}, ${threads} threads):`);
  const line = ({ name, seconds, peakRss }) => [name, seconds.toFixed(1), (peakRss / 2 ** 20).toFixed(0)];
  say(table([['', 's', 'MiB'], ...rows.map(line)]));
  say('');
}
if (wants('ggml')) {
  results.ggml = run('ggml.mjs');
  if (results.ggml.missing) say(`Skipped ggml: ${results.ggml.missing}\n`);
  else {
    const { isa, rows } = results.ggml;
    say(
      `ggml's types (${isa}, 1 thread): squared error of ggml's own quantizer's, which is 1, and millions of weights a second:`,
    );
    const speed = (perSecond) => (perSecond / 1e6).toFixed(0);
    const line = ({ type, subject, weighted, ratio, weightsPerSecond, ggmlWeightsPerSecond, exact }) => [
      ...[type, subject, weighted ? 'importance' : '', ratio.toFixed(4)],
      ...[speed(weightsPerSecond), speed(ggmlWeightsPerSecond), exact ? 'equal' : 'DIFFERENT'],
    ];
    say(table([['', 'weights', '', 'error', 'ours', "ggml's", 'decoded by ggml'], ...rows.map(line)]));
    say('');
  }
}
if (wants('llama.cpp')) {
  results.llamaCpp = run('llama.cpp.mjs');
  say(llamaCppTables(results.llamaCpp));
}
if (wants('onnx')) {
  results.onnx = run('onnxruntime.mjs');
  say(onnxTables(results.onnx));
}
if (wants('event-loop')) {
  results.eventLoop = run('event-loop.mjs');
  const { isa, threads, rows } = results.eventLoop;
  say(`Delay of the event loop, milliseconds (${isa}, ${threads} threads):`);
  const line = ({ name, count, ms, p50, p99, max }) => [
    `${count} ${name}`,
    ...[ms, p50, p99, max].map((value) => value.toFixed(2)),
  ];
  say(table([['', 'took', 'p50', 'p99', 'most'], ...rows.map(line)]));
  say('');
}
if (wants('checkpoint')) {
  results.checkpoint = run('checkpoint.mjs');
  const c = results.checkpoint;
  say(`Checkpoint of ${(c.bytes / 1e9).toFixed(2)} GB bfloat16, ${c.threads} threads (${c.isa}):`);
  say(
    `wall ${c.seconds.toFixed(2)} s; kernels alone ${c.kernelSeconds.toFixed(2)} s; cp and fsync ${c.copySeconds.toFixed(2)} s; ` +
      `${(c.seconds / Math.max(c.kernelSeconds, c.copySeconds)).toFixed(2)} of the larger; peak RSS ${(c.peakRss / 2 ** 20).toFixed(0)} MiB`,
  );
}
if (json) console.log(JSON.stringify(results, null, 2));
