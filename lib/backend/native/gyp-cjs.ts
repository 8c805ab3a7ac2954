declare const require: NodeJS.Require;

/** The place of gyp.ts in the CommonJS build: a plain `require`, which programs that trace files follow. */
export function requireNodeGypBuild(root: string): unknown {
  try {
    return require('node-gyp-build');
  } catch {
    return require(require.resolve('node-gyp-build', { paths: [root] }));
  }
}
