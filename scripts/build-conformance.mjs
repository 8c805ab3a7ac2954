#!/usr/bin/env node
// Builds build-conformance/main.mjs: the tests of test/conformance/main.ts as one program for any Node that the package supports.
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'tsdown';

const root = fileURLToPath(new URL('..', import.meta.url));
const outDir = path.join(root, 'build-conformance');

/** Files are found beside the source that asks for them, which the program is not. */
const sourcesStayWhereTheyWere = {
  name: 'sources-stay-where-they-were',
  transform(code, id) {
    const file = path.normalize(id); // the bundler writes slashes everywhere
    if (!file.startsWith(root) || file.includes('node_modules') || !code.includes('import.meta.url')) return undefined;
    const relative = path.relative(outDir, file).replaceAll(path.sep, '/');
    return {
      code: code.replaceAll('import.meta.url', `new URL(${JSON.stringify(relative)}, import.meta.url).href`),
      map: null,
    };
  },
};

export async function buildConformance() {
  await build({
    ...{
      config: false,
      cwd: root,
      entry: { main: 'test/conformance/main.ts' },
      outDir,
      format: 'esm',
      platform: 'node',
      target: 'node20',
    },
    ...{
      fixedExtension: true,
      dts: false,
      clean: true,
      logLevel: 'error',
      noExternal: [/@vitest|chai|tinyrainbow|assertion-error/],
    },
    treeshake: false, // tests are side effects, which package.json says there are none of
    alias: { vitest: path.join(root, 'test', 'conformance', 'vitest.ts') },
    plugins: [sourcesStayWhereTheyWere],
  });
  return path.join(outDir, 'main.mjs');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(await buildConformance());
