import charts from 'uplot/dist/uPlot.iife.min.js?raw';
import chartStyle from 'uplot/dist/uPlot.min.css?raw';
import { plain } from '../../messages/text.js';
import type { BitPlan } from '../../models/bit-plan.js';
import { type Figures, MOST_ROWS, tableTitle } from '../../models/figures/gather.js';
import { OUTLIER } from '../../models/figures/groups.js';
import type { CompareReport } from '../../models/report.js';
import style from './page.css?raw';
import model from './page-model.mjs?raw';
import tensor from './page-tensor.mjs?raw';
import tools from './page-tools.mjs?raw';

/** What a page shows. */
interface Content {
  readonly report: CompareReport;
  readonly figures: Figures;
  /** The plan that bits are from. */
  readonly plan: BitPlan | undefined;
}

/** What the page may do: run what stands in it. Nothing is loaded from anywhere. */
const POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'";

/** One page that holds all that it needs. */
export function pageOf({ report, figures, plan }: Content): string {
  const title = `${plain(report.original)} and ${plain(report.quantized)}`;
  const data = {
    ...figures,
    ...{
      original: report.original,
      quantized: report.quantized,
      totals: report.totals,
      outlier: OUTLIER,
      rows: MOST_ROWS,
    },
    plan: plan?.report,
  };
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${markup(title)}</title>
<style>${chartStyle}</style>
<style>${style}</style>
</head>
<body>
<main>
<header><div><h1>What quantization changed</h1><p>${markup(report.original)} &rarr; ${markup(report.quantized)}</p></div><button id="theme" type="button">Dark</button></header>
${report.notes.map((note) => `<p class="lead">${markup(note)}</p>\n`).join('')}<div class="tiles" id="tiles"></div>
<section><h2>Sizes</h2><p class="lead">Bytes of tensors, by kind.</p><div class="stack" id="sizes"></div><div class="legend" id="size-legend"></div></section>
<section id="by-layer"><h2>Error by layer</h2><p class="lead">Relative error of each kind of tensor, layer by layer. A click shows the tensor below; one on the legend hides a kind.</p><div class="chart" id="layers"></div></section>
<section><h2>Error by kind of tensor</h2><p class="lead">Bars: all tensors of a kind together. Lines: from the tensor with the least error to that with the most.</p><div class="kinds" id="kinds"></div></section>
<section id="bits"><h2>Bits by layer</h2><p class="lead" id="bits-lead"></p><div class="scroll"><div class="cells" id="cells"></div></div></section>
<section id="plan"><h2>The plan</h2><p class="lead" id="plan-lead"></p><div class="chart" id="plan-curve"></div></section>
<section id="one"><h2>One tensor</h2><p class="lead">How its weights are spread, and the errors that quantization made. Few lie beyond the charts.</p><select id="tensor" aria-label="tensor"></select><div class="pair"><div><h3>Weights of the original</h3><div class="chart" id="weights"></div></div><div><h3>Errors</h3><div class="chart" id="errors"></div></div></div><div class="facts" id="facts"></div></section>
<section><h2>Outlier groups</h2><p class="lead" id="outlier-lead"></p><div class="scroll" id="outliers"></div></section>
<section><details><summary>${tableTitle(figures.tensors.length)}</summary><div class="scroll tall" id="all"></div></details></section>
<footer>Made by hqq compare. Relative error: the root of the summed squared errors over that of the summed squared weights.</footer>
</main>
<script type="application/json" id="figures">${JSON.stringify(data).replaceAll('<', '\\u003c')}</script>
<script>${charts}</script>
<script type="module">${[tools, model, tensor].join('\n')}</script>
</body>
</html>
`;
}

/** Text as markup shows it. */
function markup(text: string): string {
  return plain(text).replaceAll(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
}
