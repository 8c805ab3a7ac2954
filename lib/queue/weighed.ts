import { join } from 'node:path';
import { readStatistics, saveStatistics } from '../calibrate/statistics-file.js';
import { readWhole } from '../files/io.js';
import { parseJson } from '../files/json.js';
import { formatError } from '../messages/text.js';
import type { Weighing } from '../models/quantize/quantize.js';
import type { Importance } from '../models/quantize/quantize-shard.js';
import { FILES } from './manifest.js';
import { writeJson } from './whole-file.js';

// What the errors of each layer's inputs count by, as files that all workers read: the same numbers on every machine.

/** What is known of importance, and where from. */
export interface Weighed {
  readonly importance?: Importance;
  readonly source: string;
  readonly notes: readonly string[];
}

/** Largest file that says what the numbers are from. */
const MAX_BYTES = 4 * 1024 * 1024;

/** Its last file is there when all is. */
export async function writeWeighed(folder: string, { importance, source, notes }: Weighing): Promise<void> {
  if (importance !== undefined) {
    const statistics = { source: 'hqq quantize --queue', tokens: undefined, meanSquares: importance };
    await saveStatistics(join(folder, FILES.importance), statistics, { force: true, seed: undefined });
  }
  await writeJson(join(folder, FILES.weighed), { source, notes, numbers: importance !== undefined });
}

export async function readWeighed(folder: string): Promise<Weighed> {
  const path = join(folder, FILES.weighed);
  const value = parseJson(await readWhole(path, MAX_BYTES), { file: path }) as Partial<Weighed> & { numbers?: unknown };
  const { source, notes, numbers } = value ?? {};
  if (typeof source !== 'string' || !Array.isArray(notes) || notes.some((note) => typeof note !== 'string'))
    throw formatError(path, 'expected what importance is from, and notes.');
  if (numbers !== true) return { source, notes };
  return { source, notes, importance: (await readStatistics(join(folder, FILES.importance))).meanSquares };
}
