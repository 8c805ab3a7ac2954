// docs/solvers.md of what bench/solvers.mjs measured: `npm run bench -- solvers --write`; `solver-speeds --write` measures its last column anew.

const BITS = [8, 4, 3, 2, 1.58, 1];

const INTRO = `# Solvers, measured

What each solver makes of weights, one beside the other; [numerics.md](numerics.md) says what they do. Errors are relative, \`||W - W'|| / ||W||\`, for groups of
32 / 64 / 128 with scales and zeros in float32: rounding them to float16 changes no digit here. Speed is in million weights a second of processor time, packed, one thread, 4 bits in groups of 64,
the best of five runs; \`npm run bench -- solver-speeds --write\` measures it alone, on a machine that does nothing else, in half a minute. [performance.md](performance.md) has more.
`;

const errorOf = (rows, nbits) => rows.filter((row) => row.nbits === nbits).map(({ relativeError }) => relativeError);
const short = (x) => x.toFixed(4).replace(/^0/, '');

function tableOf(rows) {
  const names = [...new Set(rows.map(({ solver, zeroPoint }) => `${solver} ${zeroPoint}`))];
  const lines = names.map((name) => {
    const own = rows.filter(({ solver, zeroPoint }) => `${solver} ${zeroPoint}` === name);
    const speed = own.find(({ nbits, groupSize }) => nbits === 4 && groupSize === 64).weightsPerSecond / 1e6;
    const [solver, zeros] = name.split(' ');
    return [`\`${solver}\``, zeros, ...BITS.map((bits) => errorOf(own, bits).map(short).join(' / ')), speed.toFixed(0)];
  });
  const header = ['solver', 'zeros', ...BITS.map((bits) => `${bits} bits`), 'M/s'];
  return [header, header.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** `joint` with scales and zeros as bytes. */
function bytesTable(rows) {
  const lines = rows.map(({ nbits, groupSize, bitsPerWeight, relativeError }) => [
    ...[`${nbits}`, `${groupSize}`, bitsPerWeight.toFixed(2), short(relativeError)],
  ]);
  const header = ['bits', 'group', 'bits per weight', 'error'];
  return [header, header.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** What costs about as many bits per weight as one of ggml's types, the best of them. */
function besideGgml(rows, ggml) {
  const lines = ggml.map((type) => {
    const rivals = rows.filter(
      ({ subject, bitsPerWeight }) => subject === 'gaussian' && bitsPerWeight <= type.bitsPerWeight + 1e-9,
    );
    const best = rivals.reduce((a, b) => (b.relativeError < a.relativeError ? b : a));
    const zeros = `${best.zeroPoint} zeros, ${best.metaBits}-bit scales`;
    const what = `\`${best.solver}\`, ${best.nbits} bits, groups of ${best.groupSize}, ${zeros}`;
    const own = [best.bitsPerWeight.toFixed(2), short(best.relativeError)];
    return [type.name, type.bitsPerWeight.toFixed(2), short(type.gaussian), what, ...own];
  });
  const header = ["ggml's type", 'bits per weight', 'error', 'here', 'bits per weight', 'error'];
  return [header, header.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** The page, whole. */
export function solversPage({ isa, rows, ggml }, cpu) {
  const subjects = [...new Set(rows.map(({ subject }) => subject))];
  const tables = subjects.map(
    (subject) => `## ${subject}\n\n${tableOf(rows.filter((row) => row.subject === subject && row.metaBits === 16))}\n`,
  );
  const bytes = rows.filter((row) => row.subject === 'gaussian' && row.metaBits === 8);
  return `${[
    INTRO,
    `Measured on ${cpu}, ${isa}, by \`npm run bench -- solvers --write\`, which writes this page; real weights are taken from \`HQQ_MODELS\`.\n`,
    ...tables,
    `## Scales and zeros as bytes\n\n\`metaBits: 8\`, gaussian weights, \`joint\`; [how](numerics.md#scales-and-zeros-as-bytes).\n`,
    `${bytesTable(bytes)}\n`,
    `## Beside ggml's types\n\nIts own quantizer's errors on gaussian weights, and the least error of the tables above at as many bits or fewer; 16-bit scales and float zeros are counted as such.\n`,
    `${besideGgml(rows, ggml)}\n`,
  ].join('\n')}`;
}

/** The page with other speeds: the last cell of each row of a solver. */
export function withSpeeds(page, { rows }) {
  let subject = '';
  const line = (text) => {
    subject = /^## (.*)$/.exec(text)?.[1] ?? subject;
    const [, solver, zeroPoint] = /^\| `(\w+)` \| (\w+) \|/.exec(text) ?? [];
    const row = rows.find((one) => one.subject === subject && one.solver === solver && one.zeroPoint === zeroPoint);
    return row ? text.replace(/\d+ \|$/, `${(row.weightsPerSecond / 1e6).toFixed(0)} |`) : text;
  };
  return page.split('\n').map(line).join('\n');
}
