import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** Before all tests: dist/ is what lib/ says, for those that run what users run. */
export function setup(): void {
  const script = fileURLToPath(new URL('../../scripts/build-dist.mjs', import.meta.url));
  execFileSync(process.execPath, [script], { stdio: 'inherit' });
}
