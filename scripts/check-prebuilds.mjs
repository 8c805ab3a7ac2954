#!/usr/bin/env node
// Before `npm pack` and `npm publish`: whether the package would have its binaries. Without one, that system computes in JavaScript.
//
// HQQ_PACK_WITHOUT_PREBUILDS=1   packs what is there
import { existsSync } from 'node:fs';
import { fileOf, nameOf, targets } from './targets.mjs';

const missing = targets.filter((target) => !existsSync(new URL(`../prebuilds/${fileOf(target)}`, import.meta.url)));
if (missing.length > 0 && process.env.HQQ_PACK_WITHOUT_PREBUILDS !== '1') {
  const all = missing.length === targets.length;
  const without = all ? 'none' : `none for ${missing.map(nameOf).join(', ')}`;
  console.error(
    `hqq: Expected prebuilds/ to hold the ${targets.length} binaries of the package, got ${without}: JavaScript would compute there. ` +
      'Run npm run prebuild first, or set HQQ_PACK_WITHOUT_PREBUILDS=1 to pack what there is.',
  );
  process.exitCode = 1;
}
