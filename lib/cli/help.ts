import { packageVersion } from '../models/quantize/version.js';
import { argument, type Command } from './command.js';
import { type Flag, kebab } from './flags.js';
import { bold, pairs, paragraph } from './show/table.js';

/** What every command means by a model. */
const MODEL = [
  'A model is a .safetensors file, or a Hugging Face folder with config.json and its safetensors files; org/name is one that',
  "is in this machine's Hugging Face cache (hf download org/name puts it there).",
].join('\n');

function usage({ name, args, flags }: Command): string {
  const required = Object.entries(flags).filter(([, flag]) => flag.required);
  const needs = required.map(([key, flag]) => `--${kebab(key)} <${flag.value}>`);
  return [name, ...args.map(argument), ...needs].join(' ');
}

/** `hqq --help` */
export function generalHelp(commands: readonly Command[]): string {
  return [
    paragraph(
      `hqq ${packageVersion()}: Half-Quadratic Quantization, 1- to 8-bit weights without data and without Python`,
    ),
    '\n',
    bold('Usage\n'),
    pairs([
      ...commands.map((command) => [`hqq ${usage(command)}`, command.summary] as const),
      ['hqq <command> --help', 'explain a command and its flags'],
      ['hqq --version', 'say which version this is'],
    ]),
    '\n',
    paragraph(MODEL),
    '\n',
    bold('Environment\n'),
    pairs([
      ['HQQ_BACKEND', 'auto, native or js: what computes (default auto: native where it loads)'],
      ['HQQ_ISA', 'avx512, avx2, neon or scalar: the instruction set of native code (default: the best)'],
      ['HQQ_THREADS', 'most threads to use (default: as many as the system offers)'],
    ]),
    '\n',
    bold('Exit status\n'),
    pairs([
      ['0', 'done'],
      ['1', 'failed'],
      ['2', 'wrong usage: what is wrong whatever the model holds'],
      ['130, 143, 129', 'interrupted, terminated, its terminal closed: nothing was written'],
    ]),
  ].join('');
}

/** `hqq <command> --help` */
export function commandHelp(command: Command): string {
  const { summary, details, flags } = command;
  return [
    paragraph(`hqq ${usage(command)}: ${summary}`),
    details === undefined ? '' : `\n${paragraph(details)}`,
    `\n${bold('Flags')}\n`,
    pairs([
      ...Object.entries(flags).map(([key, flag]) => [label(key, flag), explanation(flag)] as const),
      ['--help', 'this text'],
    ]),
  ].join('');
}

function label(key: string, flag: Flag<unknown>): string {
  if (flag.value === undefined) return `--${kebab(key)}`;
  return flag.takes ? `--${kebab(key)} [${flag.value}]` : `--${kebab(key)} <${flag.value}>`;
}

/** "bits per weight: one of 8, 6 ... (default 4)" */
function explanation({ help, expected, default: fallback, required, repeats, parse }: Flag<unknown>): string {
  const range = expected !== undefined && (parse || /^one of/.test(expected)) ? `: ${expected}` : '';
  const more = repeats ? '; may be repeated' : '';
  return `${help}${range}${more}${required ? ' (needed)' : fallback === undefined ? '' : ` (default ${fallback})`}`;
}
