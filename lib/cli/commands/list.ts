import type { Command } from '../command.js';
import { bench } from './bench.js';
import { calibrate } from './calibrate.js';
import { chat } from './chat.js';
import { compare } from './compare.js';
import { dequantize } from './dequantize.js';
import { doctor } from './doctor.js';
import { evaluate } from './evaluate.js';
import { generate } from './generate.js';
import { inspect } from './inspect.js';
import { perplexity } from './perplexity.js';
import { plan } from './plan.js';
import { quantize } from './quantize.js';
import { serve } from './serve.js';
import { worker } from './worker.js';

/** Every command, in the order of `--help`. A new one is a file and a line here. */
export const COMMANDS: readonly Command[] = [
  quantize,
  worker,
  calibrate,
  plan,
  dequantize,
  inspect,
  compare,
  generate,
  chat,
  serve,
  perplexity,
  evaluate,
  bench,
  doctor,
];
