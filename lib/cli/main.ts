#!/usr/bin/env node
import { interruptible, spareMemory, takeOverWarnings, watchEscapes, watchOutput } from './process.js';
import { flagsOf, Program } from './program.js';

/** Commands whose arrays are large and whose objects are few. */
const SPARING = ['quantize', 'calibrate', 'dequantize', 'compare'];

const args = process.argv.slice(2);
const program = new Program(args, interruptible(), (text) => process.stdout.write(text));
takeOverWarnings(flagsOf(args).includes('--quiet'));
watchOutput((error) => program.reportOutput(error));
watchEscapes((error) => program.report(error));
if (SPARING.includes(args[0]!)) await spareMemory();
process.exitCode = await program.run();
