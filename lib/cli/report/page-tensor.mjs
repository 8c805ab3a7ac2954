// One tensor, and tables of tensors, in the page: after page-model.mjs, in one script. Then it is drawn.

// One tensor.
const detailed = data.tensors.filter((one) => one.weights);
let chosen = [...detailed].sort((a, b) => b.relative - a.relative)[0];
const histogram = (id, key, label, tint) =>
  chart(at(id), () => {
    const { from, width, counts } = chosen[key];
    const total = sum(counts, (count) => count) + chosen[key].beyond[0] + chosen[key].beyond[1];
    return {
      values: [counts.map((_, bin) => from + bin * width), counts.map((count) => count / total)],
      options: {
        height: 260,
        legend: { show: false },
        cursor: { y: false, points: { show: false } },
        scales: {
          x: { time: false, range: () => [from, from + counts.length * width] },
          y: { range: (_, __, most) => [0, most * 1.06] },
        },
        axes: [axis(label, n, { space: 70 }), axis('share of the weights', percent, { size: 60 })],
        series: [
          {},
          {
            stroke: colour(tint),
            fill: `${colour(tint)}99`,
            width: 1,
            points: { show: false },
            paths: uPlot.paths.bars({ size: [1, Infinity], align: 1, gap: 0 }),
          },
        ],
        plugins: [
          pointer((bin) => [
            make('p', {}, `${n(from + bin * width)} to ${n(from + (bin + 1) * width)}`),
            tipRow('weights', counts[bin].toLocaleString('en')),
            tipRow('share', percent(counts[bin] / total)),
          ]),
        ],
      },
    };
  });
let spreads = [];
const facts = () => {
  const { groups } = chosen;
  const fact = (name, value) => make('div', {}, make('span', {}, name), value);
  const beyond = (key) => sum(chosen[key].beyond, (count) => count).toLocaleString('en');
  at('facts').replaceChildren(
    fact('shape', chosen.shape.join(' x ')),
    fact('stored as', chosen.storage),
    fact('relative error', percent(chosen.relative)),
    fact('largest error', n(chosen.largest)),
    fact('size', `${bytes(chosen.before)} to ${bytes(chosen.after)}`),
    fact('beyond the charts', `${beyond('weights')} weights, ${beyond('errors')} errors`),
    ...(groups
      ? [
          fact('error of the median group', n(groups.median)),
          fact('of all but 1 % of groups', `at most ${n(groups.most)}`),
          fact('outlier groups', `${groups.outliers.toLocaleString('en')} of ${groups.count.toLocaleString('en')}`),
        ]
      : []),
  );
};
function choose(name, jump) {
  const one = detailed.find((tensor) => tensor.name === name);
  if (one === undefined) return;
  chosen = one;
  at('tensor').value = name;
  for (const spread of spreads) spread.draw();
  facts();
  if (jump) at('one').scrollIntoView({ behavior: 'smooth', block: 'center' });
}
if (chosen) {
  at('tensor').append(
    ...detailed.map(({ name, relative }) => make('option', { value: name }, `${name} (${percent(relative)})`)),
  );
  at('tensor').value = chosen.name;
  at('tensor').addEventListener('change', ({ target }) => choose(target.value));
  spreads = [
    histogram('weights', 'weights', 'weight', '--s1'),
    histogram('errors', 'errors', 'error: quantized - original', '--s2'),
  ];
  draws.push(facts);
} else at('one').remove();

/** A table whose rows choose a tensor. */
function table(place, heads, rows) {
  const cell = (tag) => (inside, i) => make(tag, heads[i].startsWith('>') ? { class: 'n' } : {}, inside);
  const row = ({ name, cells }) => {
    const line = make('tr', {}, ...cells.map(cell('td')));
    line.addEventListener('click', () => choose(name, true));
    return line;
  };
  place.replaceChildren(
    make(
      'table',
      {},
      make('thead', {}, make('tr', {}, ...heads.map((head, i) => cell('th')(head.replace('>', ''), i)))),
      make('tbody', {}, ...rows.map(row)),
    ),
  );
}

// Groups that fit badly.
draws.push(() => {
  const all = data.tensors.filter((one) => one.groups);
  const [count, of] = [sum(all, (one) => one.groups.outliers), sum(all, (one) => one.groups.count)];
  at('outlier-lead').textContent =
    of === 0
      ? 'No tensor lies in groups.'
      : `A group is an outlier where its error is more than ${data.outlier} times that of the median group of its tensor: ${count.toLocaleString('en')} of ${of.toLocaleString('en')} groups (${percent(count / of)}) are.${count > 0 ? ' The worst:' : ''}`;
  if (data.outliers.length === 0) return at('outliers').remove();
  table(
    at('outliers'),
    ['tensor', 'group', '>error, of the median group', '>largest weight'],
    data.outliers.map(({ tensor, place, times, peak }) => ({
      name: tensor,
      cells: [tensor, place, `${n(times)} x`, n(peak)],
    })),
  );
});

// Every tensor.
draws.push(() =>
  table(
    at('all'),
    ['tensor', '>shape', 'stored as', '>relative error', '>largest error', '>size'],
    [...data.tensors]
      .sort((a, b) => (b.relative ?? -1) - (a.relative ?? -1))
      .slice(0, data.rows)
      .map((one) => ({
        name: one.name,
        cells: [one.name, one.shape.join(' x '), one.storage, percent(one.relative), n(one.largest), bytes(one.after)],
      })),
  ),
);

function theme(name) {
  root.dataset.theme = name;
  at('theme').textContent = name === 'dark' ? 'Light' : 'Dark';
  for (const one of charts) one.draw();
}
for (const draw of draws) draw();
const dark = matchMedia('(prefers-color-scheme: dark)');
dark.addEventListener('change', () => theme(dark.matches ? 'dark' : 'light'));
at('theme').addEventListener('click', () => theme(root.dataset.theme === 'dark' ? 'light' : 'dark'));
theme(['#dark', '#light'].includes(location.hash) ? location.hash.slice(1) : dark.matches ? 'dark' : 'light');
root.dataset.drawn = String(charts.filter(({ plot }) => plot).length);
