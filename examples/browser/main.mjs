// Quantizes a matrix in the page, at several bit widths, and shows what each costs. No server does any of the work.
import { backend, dequantize, QuantizedLinear, quantize } from 'hqq/js';

const [ROWS, COLS] = [256, 1024];

/** Weights as trained layers have them: a bell curve, by the sum of uniform numbers. */
const data = Float32Array.from({ length: ROWS * COLS }, () => {
  let sum = 0;
  for (let i = 0; i < 6; i++) sum += Math.random() - 0.5;
  return sum * 0.03;
});

const canvas = document.querySelector('canvas').getContext('2d');

/** One line of the picture: blue below zero, red above. */
function draw(weights, line) {
  for (let i = 0; i < 256; i++) {
    const level = Math.min(1, Math.abs(weights[i]) / 0.08);
    canvas.fillStyle = `hsl(${weights[i] < 0 ? 220 : 10} 80% ${100 - 60 * level}%)`;
    canvas.fillRect(i, line, 1, 1);
  }
}

document.querySelector('#about').textContent =
  `${ROWS} x ${COLS} weights, ${data.byteLength} bytes of float32; backend: ${backend().name}.`;
draw(data, 0);
for (const [line, nbits] of [8, 4, 3, 2, 1].entries()) {
  const started = performance.now();
  const q = await quantize({ data, dtype: 'float32', shape: [ROWS, COLS] }, { nbits }); // the page stays responsive meanwhile
  const time = performance.now() - started;
  draw(await dequantize(q), line + 1);
  const bytes = q.packed.byteLength + 2 * (q.scale.length + q.zero.length); // scales and zeros are stored in 16 bits
  const cells = [
    nbits,
    bytes,
    q.stats.meanAbsError.toFixed(5),
    `${(100 * q.stats.relativeError).toFixed(2)} %`,
    `${time.toFixed(0)} ms`,
  ];
  document
    .querySelector('tbody')
    .insertRow()
    .append(...cells.map((text) => Object.assign(document.createElement('td'), { textContent: text })));
}

const layer = await QuantizedLinear.fromWeight({ data, dtype: 'float32', shape: [ROWS, COLS] }, { nbits: 4 });
const y = await layer.forward(data.subarray(0, COLS));
document.querySelector('#about').textContent += ` A layer of 4 bits (${layer.kernel}) gave ${y.length} outputs.`;
document.documentElement.dataset.done = 'true';
