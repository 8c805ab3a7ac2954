// Every way to import the package, and every way TypeScript has to find its declarations.
import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { check, lastJson, run } from '../checks.mjs';
import { installTools } from './project.mjs';

/** Whether a program computed natively, without a word. */
export const isNative = (seen) =>
  seen.status === 0 &&
  seen.backend?.name === 'native' &&
  seen.same === true &&
  seen.warnings.length === 0 &&
  seen.runtime === 'function';

/** Whether a program got the same classes from `import` and from `require`. */
export const isOneCopy = (seen) =>
  seen.status === 0 &&
  seen.differing?.length === 0 &&
  seen.instances.every((holds) => holds) &&
  seen.products.join() === '64,64' &&
  seen.names.every(({ length }) => length >= 2);

export async function formats({ project, env }) {
  const labels = {
    'esm.mjs': 'ESM',
    'common.cjs': 'CommonJS',
    'worker.mjs': 'a worker thread',
    'chdir.mjs': 'after process.chdir',
  };
  for (const [file, label] of Object.entries(labels)) {
    const seen = lastJson(await run('node', [file], { cwd: project, env }));
    check(`${label}: native, the bytes of hqq/js, no warning`, isNative(seen), seen);
  }
  for (const [file, label] of Object.entries({ 'blocks.mjs': 'ESM', 'blocks.cjs': 'CommonJS' })) {
    const { status, same, modules, last } = lastJson(await run('node', [file], { cwd: project, env }));
    const sound = status === 0 && same && modules === 21 && last === 'model.layers.2.mlp.down_proj 8';
    check(`${label}: a language model block by block, the bits of the whole one`, sound, {
      status,
      same,
      modules,
      last,
    });
  }
  const both = lastJson(await run('node', ['one-copy.mjs'], { cwd: project, env }));
  check('import and require: one copy', isOneCopy(both), both);
  const doctor = await run('node', [path.join(project, 'node_modules', '.bin', 'hqq'), 'doctor'], {
    cwd: project,
    env,
  });
  check(
    'the command hqq runs',
    doctor.status === 0 && /backend +native/.test(doctor.stdout),
    doctor.stdout + doctor.stderr,
  );
}

const NODE = { lib: ['es2023'], types: ['node'] };

/**
 * One compilation: the options that matter, and the files. Declarations are checked themselves where they are first met.
 * `old` ones are done by OLD_TYPESCRIPT, too.
 */
const COMPILATIONS = {
  'node16, ESM and CommonJS': {
    module: 'node16',
    files: ['app.mts', 'app.cts', 'mixed.mts'],
    skipLibCheck: false,
    old: true,
    ...NODE,
  },
  'node10, CommonJS': {
    module: 'commonjs',
    moduleResolution: 'node10',
    ignoreDeprecations: '6.0',
    files: ['app.cts'],
    ...NODE,
  },
  'with using': { module: 'node16', files: ['using.mts'], ...NODE, lib: ['es2023', 'esnext.disposable'] },
  'without the declarations of Node': {
    ...{ module: 'node16', files: ['plain.mts'], skipLibCheck: false, old: true },
    ...{ lib: ['es2022', 'dom'], types: [] },
  },
  bundler: { module: 'esnext', moduleResolution: 'bundler', files: ['app.ts', 'results.ts'], ...NODE },
  'bundler, in a browser': {
    ...{ module: 'esnext', moduleResolution: 'bundler', files: ['web.ts'], skipLibCheck: false },
    ...{ lib: ['es2022', 'dom'], types: [] },
  },
};

/** The last version whose typed arrays have no parameter. */
const OLD_TYPESCRIPT = '5.6.3';

export async function types({ project, work, root, env, sources }) {
  const folder = path.join(project, 'typescript');
  mkdirSync(folder, { recursive: true });
  for (const ending of ['ts', 'mts', 'cts']) {
    cpSync(path.join(sources, 'app.ts'), path.join(folder, `app.${ending}`));
    cpSync(path.join(sources, 'web.ts'), path.join(folder, `web.${ending}`));
  }
  for (const name of ['mixed.mts', 'results.ts']) cpSync(path.join(sources, name), path.join(folder, name));
  for (const name of ['using', 'plain']) cpSync(path.join(sources, `${name}.ts`), path.join(folder, `${name}.mts`));
  const compile = async (tsc, name, compilerOptions, files) => {
    const common = {
      target: 'es2022',
      strict: true,
      noEmit: true,
      skipLibCheck: true,
      exactOptionalPropertyTypes: true,
    };
    const typeRoots = [path.join(root, 'node_modules', '@types')];
    const config = path.join(folder, `tsconfig.${name.replaceAll(/\W+/g, '-')}.json`);
    writeFileSync(config, JSON.stringify({ compilerOptions: { ...common, typeRoots, ...compilerOptions }, files }));
    const { status, stdout } = await run('node', [tsc, '-p', config], { cwd: folder, env });
    check(`TypeScript, ${name}`, status === 0, stdout.slice(0, 3000));
  };
  // Version 7, as `npm install typescript` gives it; what it has given up, by the last one in JavaScript.
  const [current, last] = ['typescript-7', 'typescript'].map((name) =>
    path.join(root, 'node_modules', name, 'bin', 'tsc'),
  );
  const modules = await installTools(path.join(work, 'typescript'), [`typescript@${OLD_TYPESCRIPT}`]);
  const older = path.join(modules, 'typescript', 'bin', 'tsc');
  for (const [name, { files, old, ...options }] of Object.entries(COMPILATIONS)) {
    await compile(options.moduleResolution === 'node10' ? last : current, name, options, files);
    if (old) await compile(older, `${OLD_TYPESCRIPT}, ${name}`, options, files);
  }
}
