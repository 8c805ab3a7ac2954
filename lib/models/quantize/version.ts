import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../backend/native/load.js';

/** As package.json says, which is the one place that knows. */
export const { version: VERSION } = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as {
  version: string;
};
