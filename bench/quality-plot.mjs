// node bench/quality-plot.mjs > docs/quality.svg: bits per weight against perplexity, of what bench/quality.json has, in the shape of what
// `npm run bench -- quality --json` prints of a model. Several runs of it were put together there. Light and dark, no script, no font of its own.
import { readFileSync } from 'node:fs';

const [WIDTH, HEIGHT] = [720, 560];
/** Names of series stand above the points, of which there are some everywhere. */
const NAMES = 46;
const BOX = { left: 64, right: WIDTH - 16, top: NAMES + 142, bottom: HEIGHT - 48 };
const [BITS, PERPLEXITY] = [
  [2, 4.8],
  [28, 1200],
];

const {
  name: model,
  original,
  rows,
  ggml,
} = JSON.parse(readFileSync(new URL('quality.json', import.meta.url), 'utf8'));
const of = (wanted) =>
  rows
    .filter((row) => Object.entries({ tune: undefined, ...wanted }).every(([key, value]) => row[key] === value))
    .map(({ nbits, groupSize, metaBits, refine, steps, bitsPerWeight, perplexity }) => [
      `${nbits} bits, groups of ${groupSize}${metaBits === 8 ? ', scales of 8 bits' : ''}${refine ? ', refined' : ''}${steps ? `, ${steps} steps` : ''}`,
      bitsPerWeight,
      perplexity,
    ]);
const ofGgml = (importance) =>
  ggml.filter((row) => row.importance === importance).map((row) => [row.type, row.bitsPerWeight, row.perplexity]);
const series = [
  { name: 'hqq', points: of({ solver: 'hqq', importance: 'none' }), colour: 1 },
  { name: 'joint', points: of({ solver: 'joint', importance: 'none' }), colour: 2 },
  {
    name: 'joint, importance from random tokens (the default)',
    points: of({ solver: 'joint', importance: 'random' }),
    colour: 3,
  },
  {
    name: 'joint, importance from its own text',
    points: of({ solver: 'joint', importance: 'own' }),
    colour: 6,
  },
  { name: 'joint, tuned with its own text', points: of({ solver: 'joint', tune: true }), colour: 7 },
  { name: 'joint, tuned, then all layers together', points: of({ solver: 'joint', tune: 'model' }), colour: 8 },
  { name: 'llama.cpp K types', points: ofGgml('none'), colour: 4, open: true },
  {
    name: 'llama.cpp K types, imatrix of the measured text',
    points: ofGgml('measured text'),
    colour: 5,
    open: true,
  },
];

const x = (bits) => BOX.left + ((bits - BITS[0]) / (BITS[1] - BITS[0])) * (BOX.right - BOX.left);
const share = (value) => Math.log(value / PERPLEXITY[0]) / Math.log(PERPLEXITY[1] / PERPLEXITY[0]);
const y = (value) => BOX.bottom - share(value) * (BOX.bottom - BOX.top);
const inside = ([, bits, value]) => bits <= BITS[1] && value <= PERPLEXITY[1];
const n = (value) => value.toFixed(1);
const text = (at, down, content, more = '') => `<text x="${n(at)}" y="${n(down)}"${more}>${content}</text>`;

const lines = [];
for (const value of [30, 40, 60, 100, 200, 400, 800]) {
  lines.push(
    `<path class="grid" d="M${BOX.left} ${n(y(value))}H${BOX.right}"/>`,
    text(BOX.left - 8, y(value) + 4, value, ' text-anchor="end"'),
  );
}
for (const bits of [2, 2.5, 3, 3.5, 4, 4.5]) {
  lines.push(
    `<path class="grid" d="M${n(x(bits))} ${BOX.top}V${BOX.bottom}"/>`,
    text(x(bits), BOX.bottom + 18, bits, ' text-anchor="middle"'),
  );
}
lines.push(`<path class="original" d="M${BOX.left} ${n(y(original))}H${BOX.right}"/>`);
const drawn = series.filter(({ points }) => points.some(inside));
drawn.forEach(({ name, points, colour, open }, index) => {
  const shown = points.filter(inside).sort((a, b) => a[1] - b[1]);
  for (const [label, bits, value] of shown) {
    const title = `<title>${name}: ${label}, ${bits.toFixed(2)} bits per weight, perplexity ${value.toFixed(1)}</title>`;
    lines.push(
      `<circle class="c${colour}${open ? ' open' : ''}" cx="${n(x(bits))}" cy="${n(y(value))}" r="5">${title}</circle>`,
    );
  }
  const down = NAMES + index * 18;
  lines.push(
    `<circle class="c${colour}${open ? ' open' : ''}" cx="${BOX.left + 8}" cy="${down - 4}" r="5"/>`,
    text(BOX.left + 20, down, name),
  );
});

console.log(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" font-family="system-ui, sans-serif" font-size="12">
<title>Bits per weight against perplexity of ${model}</title>
<style>
svg { background: #fff; color: #1f2328 } text { fill: #1f2328 } .grid { stroke: #d1d9e0 } .original { stroke: #1f2328; stroke-dasharray: 4 4 }
.c1 { fill: #8c959f; stroke: #8c959f } .c2 { fill: #bc4c00; stroke: #bc4c00 } .c3 { fill: #0969da; stroke: #0969da }
.c4 { stroke: #8250df } .c5 { stroke: #1a7f37 } .c6 { fill: #bf3989; stroke: #bf3989 } .c7 { fill: #1a7f37; stroke: #1a7f37 }
.c8 { fill: #cf222e; stroke: #cf222e } circle { stroke-width: 2 } .open { fill: none }
@media (prefers-color-scheme: dark) {
svg { background: #0d1117 } text { fill: #f0f6fc } .grid { stroke: #3d444d } .original { stroke: #f0f6fc }
.c1 { fill: #9198a1; stroke: #9198a1 } .c2 { fill: #db6d28; stroke: #db6d28 } .c3 { fill: #4493f8; stroke: #4493f8 }
.c4 { stroke: #ab7df8 } .c5 { stroke: #3fb950 } .c6 { fill: #f778ba; stroke: #f778ba } .c7 { fill: #3fb950; stroke: #3fb950 }
.c8 { fill: #f85149; stroke: #f85149 } .open { fill: none }
}
</style>
${text(BOX.left, 22, `Perplexity of ${model}, wikitext-2, lower is better (dashes: the original, ${original.toFixed(1)})`, ' font-size="14"')}
${lines.join('\n')}
${text((BOX.left + BOX.right) / 2, HEIGHT - 10, 'bits per weight, scales and zeros included', ' text-anchor="middle"')}
</svg>`);
