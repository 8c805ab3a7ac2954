import { createRequire } from 'node:module';
import path from 'node:path';

/**
 * node-gyp-build, loaded when it is needed: from here, or from the package's folder `root` where this file became part of a
 * bundle. The CommonJS build takes gyp-cjs.ts instead.
 */
export function requireNodeGypBuild(root: string): unknown {
  // In a variable, by which tracers know it; not named "require", which bundlers would take for their own. A bundler that
  // makes CommonJS of this leaves `import.meta` empty.
  const req = createRequire(import.meta.url || path.join(root, 'package.json'));
  try {
    return req('node-gyp-build');
  } catch {
    return req(req.resolve('node-gyp-build', { paths: [root] }));
  }
}
