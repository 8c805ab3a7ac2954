import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { defineConfig, type Rolldown, type UserConfig } from 'tsdown';

// A program may import this package, a dependency of it require it: in one process of Node they must get one copy, or an object of
// the one is foreign to the other. So the CommonJS build is the package there, and what is imported is a few lines that name its
// exports (Node 20 cannot require ES modules). Bundlers, which cannot put Node's own modules into CommonJS within ES modules, take the
// second build, of ES modules, for both: the condition "module" of package.json. The command line shares its files.

/** Warnings and errors only; how long plugins took is no concern of users who build. */
const checks = { pluginTimings: false };

/** Takes the file `other` of lib wherever `name` is imported. */
const replaced = (name: string, other: string): Rolldown.Plugin => ({
  name: `instead-of-${name}`,
  resolveId: (id: string) =>
    id.endsWith(`/${name}`) ? fileURLToPath(new URL(`lib/${other}`, import.meta.url)) : undefined,
});

/**
 * Beside each CommonJS entry, declarations and an ES module that names its exports. Node looks for these in what a module is made from,
 * all of its text: an entry that holds more than names gets a go-between (`-node`).
 */
const imported = (between?: '-node'): Rolldown.Plugin => ({
  name: 'imported',
  generateBundle(_, bundle) {
    for (const chunk of Object.values(bundle)) {
      if (chunk.type !== 'chunk' || !chunk.isEntry || !chunk.fileName.endsWith('.cjs')) continue;
      const { name, fileName, exports } = chunk;
      const emit = (file: string, source: string) => this.emitFile({ type: 'asset', fileName: file, source });
      emit(`${name}.d.mts`, `export * from './${fileName}';\n`);
      const named = `${name}${between ?? ''}`;
      emit(`${named}.mjs`, `export { ${exports.join(', ')} } from './${named}.cjs';\n`);
      if (between === undefined) continue;
      const lines = exports.map((key) => `exports.${key} = all.${key};\n`);
      emit(`${named}.cjs`, `const all = require('./${fileName}');\n${lines.join('')}`);
    }
  },
});

/** `import text from 'file?raw'` is the file's text, as Vite has it: of a file of lib, or of a package. */
const texts: Rolldown.Plugin = {
  name: 'texts',
  resolveId(id, importer) {
    if (!id.endsWith('?raw')) return undefined;
    return `\0text:${createRequire(importer!).resolve(id.slice(0, -'?raw'.length))}.text`; // tsdown asks for a plugin at .css
  },
  load(id) {
    if (!id.startsWith('\0text:')) return undefined;
    const file = id.slice('\0text:'.length, -'.text'.length);
    this.addWatchFile(file);
    return `export default ${JSON.stringify(readFileSync(file, 'utf8'))};`;
  },
};

/** What an import reads is one file, whole, and nothing else: each file costs time. (Of these folders only models read text, memory and overlay.) */
const GROUPS = [
  {
    name: 'compute',
    test: /\blib[\\/](messages|matrix|solvers|backend|compute)[\\/](?!text\.|memory\.|overlay\.|later\.|lora[\\/]set\.|js[\\/](?:blocks|gradients)[\\/]|js[\\/](?:layers|encoder-layers|attention|dense|meter|turn|words|short-meta)\.|block-types\.)/,
  },
  { name: 'adapters', test: /\blib[\\/](?:compute[\\/]lora[\\/]set|backend[\\/]js[\\/](?:dense|meter))\./ },
  {
    name: 'language-models',
    test: /\blib[\\/](?:runtime[\\/]|allocate[\\/]|tune[\\/]|calibrate[\\/](?!weighing)|backend[\\/]js[\\/](?:gradients[\\/]|(?:layers|encoder-layers|attention|short-meta)\.))/,
  },
];

const common: UserConfig = { fixedExtension: true, clean: false, logLevel: 'warn', inputOptions: { checks } };
/** An import reads every byte: what comments say is in the declarations, and nothing needs the spaces. Names stay, for stacks. */
const text = {
  comments: { jsdoc: false },
  minify: {
    compress: { keepNames: { function: true, class: true } },
    mangle: false,
    codegen: { removeWhitespace: true },
  },
} as const;
const node: UserConfig = {
  ...common,
  platform: 'node',
  target: 'node20',
  inputOptions: { checks, preserveEntrySignatures: 'allow-extension' }, // what GROUPS needs
  outputOptions: { ...text, codeSplitting: { groups: GROUPS, includeDependenciesRecursively: false } },
};
const portable: UserConfig = {
  ...common,
  platform: 'neutral',
  target: 'es2022',
  outputOptions: text,
};
/** Nothing of Node is left. */
const withoutNode = [replaced('host.js', 'compute/host-js.ts'), replaced('later.js', 'compute/lora/now.ts')];

const ENTRY = { index: 'lib/index.ts', runtime: 'lib/runtime.ts' };
const PORTABLE_ENTRY = { js: 'lib/js.ts' };
const types: UserConfig = {
  ...common,
  format: 'esm',
  dts: { emitDtsOnly: true, compilerOptions: { stripInternal: true } },
  outExtensions: () => ({ js: '.cjs', dts: '.d.cts' }),
};

export default defineConfig([
  // gyp.ts, library.ts and bullmq.ts are written for those who follow `import`, the others for those who follow `require`.
  {
    ...node,
    entry: ENTRY,
    format: 'cjs',
    dts: false,
    clean: true,
    plugins: [
      replaced('gyp.js', 'backend/native/gyp-cjs.ts'),
      replaced('library.js', 'runtime/text/library-cjs.ts'),
      replaced('bullmq.js', 'queue/bullmq-cjs.ts'),
      imported(),
    ],
  },
  {
    ...node,
    entry: { 'index-module': ENTRY.index, 'runtime-module': ENTRY.runtime, cli: 'lib/cli/main.ts' },
    format: 'esm',
    dts: false,
    plugins: [texts],
  },
  { ...portable, entry: PORTABLE_ENTRY, format: 'esm', dts: false, plugins: withoutNode }, // what browsers load
  { ...portable, entry: PORTABLE_ENTRY, format: 'cjs', dts: false, plugins: [...withoutNode, imported('-node')] },
  { ...types, entry: ENTRY, platform: 'node' },
  { ...types, entry: PORTABLE_ENTRY, platform: 'neutral', plugins: withoutNode },
]);
