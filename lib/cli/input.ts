import { isUtf8 } from 'node:buffer';
import * as fs from 'node:fs/promises';
import { addAbortSignal } from 'node:stream';
import { ioError, readWhole } from '../files/io.js';
import { HqqError } from '../messages/errors.js';
import { plain } from '../messages/text.js';
import { formatBytes } from '../messages/units.js';
import { say } from './process.js';

/** Largest text. Every token of it is predicted, or fills a context: this much takes days. */
const MAX_TEXT_BYTES = 256 * 1024 * 1024;

/** What stands for standard input where a flag takes a file or a text. */
const STANDARD_INPUT = '-';

/** How a text is read. */
interface TextInput {
  readonly signal: AbortSignal;
  /** Says nothing to somebody who is to type the text. */
  readonly quiet: boolean;
}

/** The text of a file, or of standard input for `-`. Nothing is an error. */
export async function readTextFile(file: string, input: TextInput): Promise<string> {
  const isStandard = file === STANDARD_INPUT;
  const bytes = isStandard ? await readStandardInput(input) : await readRegular(file);
  if (bytes.length > 0) return decode(isStandard ? 'standard input' : file, bytes);
  const where = isStandard ? 'on standard input' : `in ${plain(file)}`;
  throw new HqqError('ERR_INVALID_ARGUMENT', `Expected a text ${where}, got nothing.`);
}

/** A pipe that has a name, such as the shell's `<(...)`, cannot be asked for its size; that which has none is read. */
async function readRegular(file: string): Promise<Buffer> {
  const stat = await fs.stat(file).catch(() => undefined); // what is not there is for the reader to complain about
  if (stat?.isFIFO()) {
    const message = `Cannot read ${plain(file)}. Expected a file, got a named pipe.`;
    throw new HqqError('ERR_IO', `${message} Pipe the text to standard input, with - in place of the file.`);
  }
  return readWhole(file, MAX_TEXT_BYTES);
}

/** The value of a flag that is a text, or what standard input holds for `-`, without the end of its last line. */
export async function readText(given: string, name: string, input: TextInput): Promise<string> {
  if (given !== STANDARD_INPUT) return given;
  const text = decode('standard input', await readStandardInput(input)).replace(/\r?\n$/, '');
  if (text !== '') return text;
  throw new HqqError('ERR_INVALID_ARGUMENT', `Expected ${name} on standard input, got nothing.`);
}

async function readStandardInput({ signal, quiet }: TextInput): Promise<Buffer> {
  const { stdin } = process;
  if (stdin.isTTY && !quiet) say('reads from the terminal; Ctrl-D on a line of its own ends the text.');
  const pieces: Buffer[] = [];
  let size = 0;
  try {
    for await (const piece of addAbortSignal(signal, stdin)) {
      pieces.push(piece as Buffer);
      size += (piece as Buffer).byteLength;
      if (size > MAX_TEXT_BYTES) {
        const message = `standard input: expected at most ${formatBytes(MAX_TEXT_BYTES)} of text, got more`;
        throw new HqqError('ERR_INVALID_ARGUMENT', `${message}. Give a shorter one.`);
      }
    }
  } catch (error) {
    throw ioError('Cannot read', 'standard input', error);
  }
  return Buffer.concat(pieces);
}

/** The text that bytes hold. Bytes that are none would be read as U+FFFD, and what is computed of it would mean nothing. */
function decode(name: string, bytes: Buffer): string {
  const text = bytes.toString('utf8');
  if (isUtf8(bytes)) return text;
  const again = Buffer.from(text, 'utf8');
  const other = bytes.findIndex((byte, i) => byte !== again[i]);
  const at = other < 0 ? bytes.length - 1 : other; // a text that ends in a part of U+FFFD itself
  const message = `${plain(name)}: expected text in UTF-8, which byte ${at} is not.`;
  throw new HqqError('ERR_INVALID_ARGUMENT', `${message} Convert it (iconv -t UTF-8).`);
}
