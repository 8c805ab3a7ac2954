import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../backend/native/load.js';

/** The version of this package, as package.json says, which is the one place that knows: read when it is asked for, never by an import. */
export function packageVersion(): string {
  const { version } = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as { version: string };
  return version;
}
