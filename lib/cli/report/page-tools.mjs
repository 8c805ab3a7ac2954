// biome-ignore-all lint/correctness/noUnusedVariables: what comes after it in the page uses them
// What runs in the page: it draws the figures that stand in it, and asks nothing of any other place. Names of tensors are a stranger's
// text: they become text nodes, never markup.

const data = JSON.parse(document.getElementById('figures').textContent);
const root = document.documentElement;
const SERIES = 8;

const n = (value, digits = 3) => {
  if (value === null || value === undefined) return '-';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e9)) return value.toExponential(2);
  return size >= 1000 ? Math.round(value).toLocaleString('en') : String(Number(value.toPrecision(digits)));
};
const percent = (share) => (share === null ? '-' : `${n(share * 100)} %`);
const bytes = (size) => {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  const power = size < 1 ? 0 : Math.min(Math.floor(Math.log10(size) / 3), 4);
  return `${Number((size / 1000 ** power).toPrecision(3))} ${units[power]}`;
};
const sum = (list, part) => list.reduce((total, one) => total + part(one), 0);
const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

/** An element with text or elements in it. */
function make(tag, attributes = {}, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === 'style') Object.assign(element.style, value);
    else element.setAttribute(name, value);
  }
  element.append(...inside);
  return element;
}
const at = (id) => document.getElementById(id);

// One box for what the pointer is over.
const tip = make('div', { class: 'tip', role: 'status', hidden: '' });
document.body.append(tip);
function showTip(x, y, ...inside) {
  tip.replaceChildren(...inside);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${x + 16 + width > window.innerWidth ? Math.max(8, x - width - 16) : x + 16}px`;
  tip.style.top = `${Math.max(8, Math.min(y + 16, window.innerHeight - height - 8))}px`;
}
const hideTip = () => (tip.hidden = true);
const tipRow = (name, value, swatch, near) =>
  make(
    'div',
    near ? { class: 'near' } : {},
    make('span', {}, ...(swatch ? [make('i', { style: { background: swatch } })] : []), name),
    make('span', {}, value),
  );
function withTip(element, title, rows) {
  element.tabIndex = 0;
  const show = (x, y) => showTip(x, y, make('p', {}, title), ...rows.map(([name, value]) => tipRow(name, value)));
  element.addEventListener('pointermove', ({ clientX, clientY }) => show(clientX, clientY));
  element.addEventListener('focus', () => {
    const box = element.getBoundingClientRect();
    show(box.left, box.bottom);
  });
  for (const end of ['pointerleave', 'blur']) element.addEventListener(end, hideTip);
  return element;
}

// Charts are drawn anew when the colours or the width change.
const charts = [];
function chart(place, build) {
  const one = {
    draw() {
      if (place.clientWidth === 0) return;
      one.plot?.destroy();
      const { options, values } = build();
      one.plot = new uPlot({ width: place.clientWidth, height: 300, ...options }, values, place);
    },
  };
  charts.push(one);
  new ResizeObserver(() => {
    if (one.plot && Math.abs(one.plot.width - place.clientWidth) > 1) one.draw();
  }).observe(place);
  return one;
}
const axis = (label, values, more = {}) => ({
  label,
  labelSize: 20,
  labelGap: 4,

  stroke: colour('--soft'),
  font: '12px system-ui',
  labelFont: '12px system-ui',
  grid: { stroke: colour('--grid'), width: 1 },
  ticks: { show: false },
  ...(values && { values: (_, all) => all.map((value) => (value === null ? '' : values(value))) }),
  ...more,
});
/** Names under a chart, each with a square of its colour; a click hides a series. */
const LEGEND = { show: true, markers: { width: 0, fill: (plot, i) => plot.series[i].points.fill(plot, i) } };
/** What the pointer is over: `tell` gives rows for an index of x and the height of the pointer. */
const pointer = (tell, click) => ({
  hooks: {
    init: (plot) => {
      plot.over.addEventListener('pointerleave', hideTip);
      plot.over.addEventListener('click', () => click?.(plot.cursor.idx, plot));
    },
    setCursor: (plot) => {
      const { idx, left, top } = plot.cursor;
      if (idx === null || idx === undefined || left < 0) return hideTip();
      const box = plot.over.getBoundingClientRect();
      const inside = tell(idx, plot);
      if (inside.length > 0) showTip(box.left + left, box.top + top, ...inside);
    },
  },
});
/** The series nearest to the pointer at an index. */
function nearest(plot, idx) {
  let best = { distance: Infinity, series: 0 };
  for (let series = 1; series < plot.data.length; series++) {
    const value = plot.data[series][idx];
    if (value === null || value === undefined || !plot.series[series].show) continue;
    const distance = Math.abs(plot.valToPos(value, 'y') - plot.cursor.top);
    if (distance < best.distance) best = { distance, series };
  }
  return best.series;
}
