// biome-ignore-all lint/correctness/noUnusedVariables: what comes after it in the page uses them
// The whole model, in the page: after page-tools.mjs, in one script.

// Kinds of tensors, with what they have in common, those of layers first. The rest past the colours shares the last one.
const kinds = [
  ...Map.groupBy(data.tensors, ({ kind, quantized, layer }) => (quantized || layer === null ? kind : 'norms, biases')),
]
  .map(([name, tensors]) => ({
    name,
    tensors,
    measured: tensors.filter((one) => one.squared !== null),
    before: sum(tensors, (one) => one.before),
    after: sum(tensors, (one) => one.after),
  }))
  .sort((a, b) => b.after - a.after);
kinds.forEach((kind, index) => (kind.colour = `--s${Math.min(index + 1, SERIES)}`));
const errorOf = (tensors) => Math.sqrt(sum(tensors, (one) => one.squared) / (sum(tensors, (one) => one.squaredA) || 1));

const draws = [];

// What there is to say in four numbers.
draws.push(() => {
  const quantized = data.tensors.filter((one) => one.quantized);
  const weights = sum(quantized, ({ shape }) => shape.reduce((a, b) => a * b, 1));
  const [before, after] = [sum(data.tensors, (one) => one.before), sum(data.tensors, (one) => one.after)];
  const worst = data.tensors.filter((one) => one.relative !== null).sort((a, b) => b.relative - a.relative)[0];
  const tile = (big, small) => make('div', { class: 'tile' }, make('b', {}, big), make('span', {}, small));
  at('tiles').replaceChildren(
    tile(bytes(after), `of ${bytes(before)}: ${n(before / after)} times smaller`),
    tile(
      weights === 0 ? '-' : n((8 * sum(quantized, (one) => one.after)) / weights),
      `bits per weight of ${quantized.length} tensors, scales and zeros included`,
    ),
    tile(percent(data.totals.relativeError), 'relative error of all quantized weights'),
    tile(worst ? percent(worst.relative) : '-', worst ? `the largest, ${worst.name}` : 'nothing differs'),
  );
});

// Sizes.
draws.push(() => {
  const most = Math.max(
    sum(kinds, (kind) => kind.before),
    sum(kinds, (kind) => kind.after),
  );
  const bar = (side) =>
    make(
      'div',
      { class: 'bar' },
      ...kinds
        .filter((kind) => kind[side] > 0)
        .map((kind) =>
          withTip(
            make('i', { style: { width: `${(100 * kind[side]) / most}%`, background: `var(${kind.colour})` } }),
            kind.name,
            [
              ['original', bytes(kind.before)],
              ['quantized', bytes(kind.after)],
              ['tensors', String(kind.tensors.length)],
            ],
          ),
        ),
    );
  at('sizes').replaceChildren(
    ...['before', 'after'].flatMap((side) => [
      make('span', {}, side === 'before' ? 'original' : 'quantized'),
      bar(side),
      make('b', {}, bytes(sum(kinds, (kind) => kind[side]))),
    ]),
  );
  at('size-legend').replaceChildren(
    ...kinds
      .slice(0, SERIES)
      .map((kind, index) =>
        make(
          'span',
          {},
          make('i', { style: { background: `var(${kind.colour})` } }),
          index === SERIES - 1 && kinds.length > SERIES ? 'others' : kind.name,
        ),
      ),
  );
});

// Errors by layer.
const inLayers = kinds
  .map((kind) => ({ ...kind, measured: kind.measured.filter((one) => one.layer !== null) }))
  .filter((kind) => kind.measured.length > 0);
const layers = [...new Set(inLayers.flatMap((kind) => kind.measured.map((one) => one.layer)))].sort((a, b) => a - b);
if (layers.length > 1) {
  const cells = inLayers.map((kind) => layers.map((layer) => kind.measured.filter((one) => one.layer === layer)));
  chart(at('layers'), () => ({
    values: [layers, ...cells.map((row) => row.map((some) => (some.length === 0 ? null : errorOf(some))))],
    options: {
      height: 340,
      scales: { x: { time: false } },
      cursor: { y: false, points: { size: 8 } },
      legend: LEGEND,
      axes: [axis('layer', String, { incrs: [1, 2, 5, 10, 20, 50] }), axis('relative error', percent, { size: 60 })],
      series: [
        {},
        ...inLayers.map((kind) => ({
          label: kind.name,
          stroke: colour(kind.colour),
          width: 2,
          points: { size: 5, fill: colour(kind.colour) },
        })),
      ],
      plugins: [
        pointer(
          (idx, plot) => {
            const near = nearest(plot, idx);
            const rows = inLayers
              .map((kind, s) => ({ kind, value: plot.data[s + 1][idx], near: s + 1 === near }))
              .filter(({ value }) => value !== null)
              .sort((a, b) => b.value - a.value);
            return [
              make('p', {}, `layer ${layers[idx]}`),
              ...rows.map(({ kind, value, near: is }) => tipRow(kind.name, percent(value), `var(${kind.colour})`, is)),
            ];
          },
          (idx, plot) => {
            const one = cells[nearest(plot, idx) - 1]?.[idx]?.[0];
            if (one) choose(one.name, true);
          },
        ),
      ],
    },
  }));
} else at('by-layer').remove();

// Errors by kind.
draws.push(() => {
  const shown = kinds
    .filter((kind) => kind.measured.length > 0)
    .map((kind) => ({ ...kind, error: errorOf(kind.measured), all: kind.measured.map((one) => one.relative) }))
    .sort((a, b) => b.error - a.error);
  if (shown.length === 0) return void at('kinds').replaceChildren('No tensor differs.');
  const most = Math.max(...shown.flatMap(({ all }) => all)) || 1;
  at('kinds').replaceChildren(
    ...shown.flatMap((kind) => {
      const [least, largest] = [Math.min(...kind.all), Math.max(...kind.all)];
      const track = make(
        'div',
        { class: 'track' },
        make('i', { style: { width: `${(100 * kind.error) / most}%`, background: `var(${kind.colour})` } }),
        make('u', {
          style: { left: `${(100 * least) / most}%`, width: `${Math.max(0.3, (100 * (largest - least)) / most)}%` },
        }),
      );
      return [
        make('span', {}, kind.name),
        withTip(track, kind.name, [
          ['all together', percent(kind.error)],
          ['least', percent(least)],
          ['largest', percent(largest)],
          ['tensors', String(kind.all.length)],
          ['size', bytes(kind.after)],
        ]),
        make('b', {}, percent(kind.error)),
      ];
    }),
  );
});

// Bits, where they differ, and the plan that they are from.
draws.push(() => {
  const bitsOf = ({ storage }) => Number(/^([\d.]+)-bit/.exec(storage)?.[1]);
  const quantized = data.tensors.filter((one) => one.quantized && one.layer !== null);
  const widths = [...new Set(quantized.map(bitsOf))].sort((a, b) => a - b);
  if (widths.length < 2) return void at('bits')?.remove();
  const rows = kinds.filter((kind) => kind.tensors.some((one) => one.quantized && one.layer !== null));
  const cells = rows.flatMap(({ name, tensors }) => [
    make('em', {}, name),
    ...layers.map((layer) => {
      const one = tensors.find((tensor) => tensor.layer === layer && tensor.quantized);
      if (one === undefined) return make('i');
      const strength = 20 + (80 * widths.indexOf(bitsOf(one))) / (widths.length - 1);
      return withTip(
        make('i', { style: { background: `color-mix(in oklab, var(--accent) ${strength}%, var(--grid))` } }),
        one.name,
        [
          ['stored as', one.storage],
          ['relative error', percent(one.relative)],
        ],
      );
    }),
  ]);
  at('cells').style.gridTemplateColumns = `max-content repeat(${layers.length}, 1fr)`;
  at('cells').replaceChildren(...cells);
  at('bits-lead').textContent =
    `A row is a kind of tensor, a column a layer; the darker, the more bits: ${widths.join(', ')}.`;
});
if (data.plan) {
  const { target, kept, bits, planned, uniform, line, curve } = data.plan;
  const [unit, format] = target.bits === undefined ? ['bytes', bytes] : ['bits', n];
  at('plan-lead').textContent =
    `Asked for ${target.bits === undefined ? bytes(target.bytes) : `${n(target.bits)} bits a code`}; ${kept === 'mixed' ? 'the plan was kept, since it beats uniform bits as a whole' : 'uniform bits were kept, since the plan does not beat them as a whole'} (${n(bits, 4)} bits). The curve is the sum of what layers do alone, for the least at each size; the points are whole models, on ids held back.`;
  chart(at('plan-curve'), () => {
    const points = [
      ['planned', planned[unit], planned.divergence, '--s1'],
      ['uniform bits', uniform[unit], uniform.divergence, '--s2'],
      ...(line === undefined ? [] : [['on the line between widths', planned[unit], line, '--s7']]),
    ];
    return {
      values: uPlot.join([
        [curve.map((point) => point[unit]), curve.map((point) => point.loss)],
        ...points.map(([, x, y]) => [[x], [y]]),
      ]),
      options: {
        height: 340,
        scales: { x: { time: false }, y: { distr: 3 } },
        cursor: { y: false },
        legend: LEGEND,
        axes: [
          axis(unit === 'bits' ? 'mean bits of a code' : 'bytes of the model', format, { space: 70 }),
          axis('divergence, nats', n, { size: 60 }),
        ],
        series: [
          {},
          {
            label: 'least sum of layers alone',
            stroke: colour('--s8'),
            width: 2,
            spanGaps: true,
            points: { size: 5, fill: colour('--s8') },
          },
          ...points.map(([label, , , tint]) => ({
            label,
            stroke: colour(tint),
            width: 0,
            points: { show: true, size: 13, fill: colour(tint), stroke: colour('--card'), width: 2 },
          })),
        ],
        plugins: [
          pointer((idx, plot) => [
            make('p', {}, unit === 'bits' ? `${n(plot.data[0][idx], 4)} bits a code` : bytes(plot.data[0][idx])),
            ...plot.series.flatMap(({ label }, s) =>
              s === 0 || plot.data[s][idx] === null || plot.data[s][idx] === undefined
                ? []
                : [tipRow(label, `${n(plot.data[s][idx])} nats`)],
            ),
          ]),
        ],
      },
    };
  });
} else at('plan').remove();
