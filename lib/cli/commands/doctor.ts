import { type Diagnosis, diagnose } from '../../backend/index.js';
import { plain } from '../../messages/text.js';
import { plural } from '../../messages/units.js';
import { packageVersion } from '../../models/quantize/version.js';
import { defineCommand, toJson } from '../command.js';
import { JSON_FLAG } from '../flags.js';
import { bold, pairs } from '../show/table.js';

export const doctor = defineCommand({
  name: 'doctor',
  args: [],
  summary: 'tell what computes here, why, and what would be faster',
  details:
    'Exit status 1 when the environment demands what is not to be had; JavaScript instead of native code is no failure.',
  flags: { json: JSON_FLAG },
  plan(_args, { json = false }) {
    return async ({ print }) => {
      const diagnosis = diagnose();
      print(json ? toJson({ hqq: packageVersion(), ...diagnosis }) : tell(diagnosis));
      return diagnosis.chosen ? 0 : 1;
    };
  },
});

const THREADING = { openmp: 'OpenMP', threads: "the addon's own threads" } as const;

type Line = readonly [label: string, text: string];

function tell(diagnosis: Diagnosis): string {
  const { version, platform, arch, libc, cpu, features, fix, environment } = diagnosis;
  const lines: Line[] = [
    ['hqq', packageVersion()],
    ['node', `${version.node} (Node-API ${version.napi})`],
    ['machine', `${platform} ${arch}${libc === undefined ? '' : ` (${libc})`}, ${plain(cpu)}`],
    ['features', features.length > 0 ? features.join(' ') : 'not known, or none that kernels use'],
    ['backend', verdict(diagnosis)],
    ['why', reason(diagnosis)],
    ...threads(diagnosis),
    ...instructionSets(diagnosis),
    ['loader', attempts(diagnosis)],
  ];
  if (fix !== undefined) lines.push(['to fix', plain(fix)]);
  const set = Object.entries(environment).map(([name, value]) => `${name}=${plain(value)}`);
  lines.push([
    'environment',
    set.length > 0 ? set.join('\n') : 'nothing set (HQQ_BACKEND, HQQ_ISA, HQQ_THREADS would count)',
  ]);
  return pairs(lines);
}

function verdict({ chosen }: Diagnosis): string {
  if (!chosen) return bold('none: every call fails');
  return bold(chosen.name === 'js' ? 'JavaScript' : `native, ${chosen.isa}`);
}

function reason({ chosen, error, environment, runnable }: Diagnosis): string {
  // What was tried, and what would help, follows in lines of its own.
  if (!chosen) return plain(error?.split(' Tried ', 1)[0] ?? 'the reason is not known');
  if (chosen.name === 'js') {
    const wanted = environment.HQQ_BACKEND === 'js';
    return wanted
      ? 'HQQ_BACKEND=js asks for it'
      : 'the native addon does not load here; JavaScript gives the same results, many times slower';
  }
  if (environment.HQQ_ISA) return `HQQ_ISA=${chosen.isa} asks for this instruction set`;
  if (runnable[0] === 'scalar') {
    return 'this processor runs none of the vector instructions that the addon has code for; slower, and still faster than JavaScript';
  }
  return `the addon loads, and of its instruction sets ${runnable[0]} is the fastest that this processor runs`;
}

function threads({ chosen, threading, environment }: Diagnosis): Line[] {
  if (!chosen) return [];
  if (chosen.name === 'js') return [['threads', '1: JavaScript computes on the thread that calls']];
  const source = environment.HQQ_THREADS ? 'HQQ_THREADS' : 'as many as the system offers';
  const runner = threading ? THREADING[threading] : 'the addon';
  return [['threads', `${plural(chosen.threads, 'thread')} (${source}), run by ${runner}`]];
}

/** Every instruction set of the addon, and whether this machine runs it. */
function instructionSets({ compiled, runnable, chosen }: Diagnosis): Line[] {
  if (compiled.length === 0) return [];
  const rows = compiled.map((isa) => {
    if (isa === chosen?.isa) return `${isa} (in use)`;
    return runnable.includes(isa) ? `${isa} (runs here)` : `${isa} (this machine cannot run it)`;
  });
  return [['instructions', rows.join(', ')]];
}

function attempts({ attempts: tried, environment, chosen }: Diagnosis): string {
  if (tried.length === 0) return 'nothing was tried';
  const lines = tried.map(({ path, failure }) => {
    if (failure === undefined) return `loaded ${plain(path)}`;
    return `failed ${plain(path)}\n  ${plain(failure.replace(`${path}: `, ''))}`; // linkers name the file again
  });
  const unused = chosen?.name === 'js' && environment.HQQ_BACKEND === 'js';
  return [...lines, ...(unused ? ['  (looked at for this report only)'] : [])].join('\n');
}
