#!/usr/bin/env node
import { interruptible, takeOverWarnings, watchEscapes, watchOutput } from './process.js';
import { flagsOf, Program } from './program.js';

const args = process.argv.slice(2);
const program = new Program(args, interruptible(), (text) => process.stdout.write(text));
takeOverWarnings(flagsOf(args).includes('--quiet'));
watchOutput((error) => program.reportOutput(error));
watchEscapes((error) => program.report(error));
process.exitCode = await program.run();
