import { tmpdir } from 'node:os';

process.chdir(tmpdir()); // the package must be found from its own place, not from the program's
await import('./esm.mjs');
