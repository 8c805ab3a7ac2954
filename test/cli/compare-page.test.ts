import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { planModel } from '../../lib/allocate/plan-model.js';
import { quantizeModel } from '../../lib/calibrate/weighing/quantize.js';
import { placeOf, tableTitle, withFewPlaces } from '../../lib/models/figures/gather.js';
import { Groups } from '../../lib/models/figures/groups.js';
import { Histogram } from '../../lib/models/figures/histogram.js';
import { freshPath, modelFile, randomTensor, randomWeights } from '../support/checkpoints.js';
import { findChromium, lookAt } from '../support/chromium.js';
import { expectFailure, hqq } from '../support/cli.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

const scratch = scratchFolder('compare-page');
const [quantized, planFile, page] = ['q', 'plan.json', 'page.html'].map((name) => join(scratch, name)) as [
  string,
  string,
  string,
];
const few = { probeTokens: 32, tokens: 64, widths: [2, 4] } as const;

interface Figures {
  readonly tensors: readonly {
    readonly name: string;
    readonly kind: string;
    readonly layer: number | null;
    readonly quantized: boolean;
    readonly relative: number | null;
    readonly before: number;
    readonly after: number;
    readonly shape: readonly number[];
    readonly weights?: { readonly counts: readonly number[]; readonly beyond: readonly [number, number] };
    readonly groups?: { readonly count: number };
  }[];
  readonly plan?: { readonly kept: string };
}

const figuresOf = (html: string) =>
  JSON.parse(/<script type="application\/json" id="figures">(.*)<\/script>/.exec(html)![1]!) as Figures;

beforeAll(async () => {
  const plan = await planModel(SHIPPED, { targetBits: 3, ...few });
  writeFileSync(planFile, JSON.stringify(plan));
  await quantizeModel(SHIPPED, quantized, { plan, importance: 'none' });
}, 120_000);

describe('hqq compare --html', () => {
  test('writes one page that holds all that it needs, and what --json says', async () => {
    const { stdout } = await hqq(['compare', SHIPPED, quantized, '--html', page, '--plan', planFile, '--json'], {});
    const report = JSON.parse(stdout) as { tensors: { name: string; relativeError: number }[] };
    const html = readFileSync(page, 'utf8');
    expect(html).toContain("default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'");
    expect(html).not.toMatch(/\b(?:src|href)=|@import|url\(|\bfetch\(/);
    const { tensors, plan } = figuresOf(html);
    const measured = new Map(tensors.map((one) => [one.name, one]));
    for (const { name, relativeError } of report.tensors) {
      const one = measured.get(name)!;
      expect(one.relative).toBe(relativeError);
      const { counts, beyond } = one.weights!;
      const counted = [...counts, ...beyond].reduce((a, b) => a + b, 0);
      expect(counted).toBe(one.shape.reduce((a, b) => a * b, 1));
      expect(one.groups!.count).toBe(counted / 64);
      expect(one.after).toBeLessThan(one.before / 3);
    }
    expect(plan!.kept).toMatch(/mixed|uniform/);
    expect(measured.get('model.layers.1.mlp.up_proj.weight')).toMatchObject({ kind: 'mlp.up_proj', layer: 1 });
  });

  test('replaces a page where --force says so, and nothing else', async () => {
    const again = ['compare', SHIPPED, quantized, '--html', page];
    expectFailure(await hqq(again), 1, /page\.html.*exists.*--force/);
    const { stdout, status } = await hqq([...again, '--force']);
    expect(status).toBe(0);
    expect(stdout).toContain(page);
    expect(figuresOf(readFileSync(page, 'utf8')).plan).toBeUndefined();
    expectFailure(await hqq(['compare', SHIPPED, quantized, '--html', planFile, '--force']), 1, /plan\.json/);
  });

  test('says what is wrong before anything is compared', async () => {
    expectFailure(await hqq(['compare', SHIPPED, quantized, '--plan', planFile]), 2, /--html/);
    const bare = join(scratch, 'bare.json');
    writeFileSync(bare, JSON.stringify({ version: 1, overrides: {} }));
    const other = join(scratch, 'other.html');
    const without = ['compare', SHIPPED, quantized, '--html', other, '--plan', bare];
    expectFailure(await hqq(without), 1, /bare\.json: expected the report of a plan/);
  });

  test('takes names of tensors for nothing but text', async () => {
    const name = '</script><script>alert(1)</script><!--';
    const model = modelFile({ [`${name}.weight`]: randomTensor([16, 64], 1) });
    const [out, html] = [freshPath(), join(scratch, 'hostile.html')];
    await quantizeModel(model, out);
    expect((await hqq(['compare', model, out, '--html', html])).status).toBe(0);
    const text = readFileSync(html, 'utf8');
    expect(text).not.toContain('<script>alert');
    expect(figuresOf(text).tensors[0]!.name).toContain('script>alert(1)');
  });

  const program = findChromium();
  const demanded = process.env.HQQ_DEMAND_CHROMIUM === '1';
  if (program === undefined && !demanded)
    process.stderr.write(
      'Skipped: what needs Chromium, which is not on the PATH. HQQ_DEMAND_CHROMIUM=1 fails without.\n',
    );

  test.skipIf(program === undefined && !demanded)(
    'draws in Chromium, light and dark',
    { timeout: 240_000 },
    async () => {
      const shown = join(scratch, 'shown.html');
      await hqq(['compare', SHIPPED, quantized, '--html', shown, '--plan', planFile], {}); // the build puts its style in
      const size = { program: program!, folder: scratch, width: 1200, height: 3400 };
      for (const [theme, back, ink] of [
        ['light', 0xf6f7f9, 0x2563eb],
        ['dark', 0x0e1116, 0x6ea8fe],
      ] as const) {
        const { pixels, document } = lookAt(shown, theme, size);
        expect(document).toContain(`data-theme="${theme}"`);
        expect(document).toContain('data-drawn="4"'); // by layer, the plan's curve, weights, errors
        expect(document.match(/<canvas/g)).toHaveLength(4);
        expect(pixels.at(4, 4)).toBe(back);
        let coloured = 0;
        for (let y = 0; y < pixels.height; y++)
          for (let x = 0; x < pixels.width; x++) if (pixels.at(x, y) === ink) coloured++;
        expect(coloured).toBeGreaterThan(2000);
      }
    },
  );
});

test('a histogram counts every number, in whatever order they come', () => {
  const numbers = randomWeights(10_000, 7);
  const [forth, back] = [new Histogram(), new Histogram()];
  forth.add(numbers);
  for (let at = numbers.length; at > 0; at -= 1000) back.add(numbers.slice(at - 1000, at));
  const spread = forth.spread();
  expect(back.spread()).toEqual(spread);
  const { from, width, counts } = spread;
  counts.forEach((count, bin) => {
    const [begin, end] = [from + bin * width, from + (bin + 1) * width];
    expect(numbers.filter((value) => value >= begin && value < end)).toHaveLength(count);
  });
});

test('groups that fit badly are found, on both axes', () => {
  const [rows, width, groupSize] = [4, 32, 8];
  const weights = new Float32Array(rows * width).fill(1);
  const errors = new Float32Array(rows * width).fill(0.1);
  errors.fill(0.4, 2 * width + 8, 2 * width + 16);
  const byRow = new Groups({ shape: [rows, width], groupSize, axis: 1 });
  byRow.add([{ at: 0, count: rows * width }], weights, errors);
  const found = byRow.errors();
  expect(found).toMatchObject({ count: 16, outliers: 1 });
  expect(found.told[0]).toMatchObject({ place: 'row 2, columns 8 to 15', peak: 1 });
  expect(found.told[0]!.times).toBeCloseTo(4, 5);
  const byColumn = new Groups({ shape: [rows, width], groupSize: 4, axis: 0 });
  byColumn.add([{ at: 0, count: rows * width }], weights, errors);
  expect(byColumn.errors().told[0]!.place).toBe('column 8');
});

test.each([
  ['model.layers.3.self_attn.q_proj.weight', 'self_attn.q_proj', 3],
  ['model.layers.3.mlp.experts.5.up_proj.weight', 'mlp.experts.up_proj', 3],
  ['blk.0.attn_q.weight', 'attn_q', 0],
  ['lm_head.weight', 'lm_head', null],
])('%s is of layer and kind', (name, kind, layer) => {
  expect(placeOf(name)).toEqual({ kind, layer });
});

test('kinds and layers of a page are few, however many a model has', () => {
  const given = Array.from({ length: 65_536 }, (_, i) => ({ kind: `k${i}`, layer: i, before: 65_536 - i }));
  const few = withFewPlaces(given);
  expect(few).toHaveLength(given.length);
  expect(new Set(few.map(({ kind }) => kind)).size).toBe(100);
  expect(few[98]!.kind).toBe('k98');
  expect(few[99]).toEqual({ kind: 'others', layer: 99, before: 65_437 });
  expect(new Set(few.map(({ layer }) => layer)).size).toBe(1001);
  expect(few[1000]!.layer).toBe(null);
  expect(withFewPlaces(given.slice(0, 100))).toEqual(given.slice(0, 100));
});

test('the list of tensors says how many of them it holds', () => {
  expect(tableTitle(2000)).toBe('Every tensor');
  expect(tableTitle(65_536)).toBe('The 2,000 of 65,536 tensors with the largest errors');
});
