// How long an import takes, in a process that is fresh each time: prints one JSON document.
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { median, quantile } from './measure.mjs';

const RUNS = 21;
const MODULES = ['hqq', 'hqq/js', 'hqq/runtime'];

const script = fileURLToPath(new URL('import-once.mjs', import.meta.url));
const once = (name, format) => JSON.parse(execFileSync(process.execPath, [script, name, format], { encoding: 'utf8' }));

const cases = MODULES.flatMap((name) => ['ESM', 'CommonJS'].map((format) => ({ name, format, runs: [] })));
for (let run = 0; run < RUNS; run++) for (const each of cases) each.runs.push(once(each.name, each.format)); // in turn: a slow moment slows all
const rows = cases.map(({ name, format, runs }) => {
  const ms = runs.map((run) => run.ms);
  return {
    name,
    format,
    ms: median(ms),
    low: quantile(ms, 0.25),
    high: quantile(ms, 0.75),
    cpuMs: median(runs.map((run) => run.cpuMs)),
  };
});
console.log(JSON.stringify({ runs: RUNS, rows }));
