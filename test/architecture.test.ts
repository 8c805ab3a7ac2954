import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));

function filesBelow(folder: string, endings: readonly string[]): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .map((name) => posix.join(folder, name.replaceAll('\\', '/')))
    .filter((name) => endings.some((ending) => name.endsWith(ending)));
}

/** File to the files of the project that it imports. */
function graph(files: readonly string[], pattern: RegExp): Map<string, string[]> {
  return new Map(
    files.map((file) => {
      const text = readFileSync(join(root, file), 'utf8');
      const targets = [...text.matchAll(pattern)]
        .map((match) => match[1]!)
        .filter((target) => target.includes('/') || !target.includes('<'));
      return [
        file,
        targets.map((target) => relative(root, resolve(root, dirname(file), target)).replace(/\.js$/, '.ts')),
      ];
    }),
  );
}

function cycleIn(edges: ReadonlyMap<string, readonly string[]>): string[] | undefined {
  const state = new Map<string, 'open' | 'done'>();
  const path: string[] = [];
  const visit = (node: string): string[] | undefined => {
    if (state.get(node) === 'done') return undefined;
    if (state.get(node) === 'open') return [...path.slice(path.indexOf(node)), node];
    state.set(node, 'open');
    path.push(node);
    for (const next of edges.get(node) ?? []) {
      const found = visit(next);
      if (found) return found;
    }
    path.pop();
    state.set(node, 'done');
    return undefined;
  };
  for (const node of edges.keys()) {
    const found = visit(node);
    if (found) return found;
  }
  return undefined;
}

describe('imports of lib', () => {
  const edges = graph(filesBelow('lib', ['.ts']), /(?:from|import)\s*\(?\s*'(\.[^']+)'/g);
  /** The rooms of lib/, lowest first, and the rooms below that each may import from. Files directly in lib/ may import any. */
  const ROOMS: Readonly<Record<string, readonly string[]>> = {
    messages: [],
    solvers: [],
    matrix: ['messages', 'solvers'],
    backend: ['messages', 'matrix', 'solvers'],
    compute: ['messages', 'matrix', 'solvers', 'backend'],
    files: ['messages'],
    containers: ['messages', 'matrix', 'files'],
    schemes: ['messages', 'matrix', 'solvers', 'backend', 'compute', 'files', 'containers'],
    models: ['messages', 'matrix', 'solvers', 'backend', 'compute', 'files', 'containers', 'schemes'],
    runtime: ['messages', 'matrix', 'backend', 'compute', 'files', 'models'],
    calibrate: [
      'messages',
      'matrix',
      'solvers',
      'backend',
      'compute',
      'files',
      'containers',
      'schemes',
      'models',
      'runtime',
    ],
    tune: [
      ...['messages', 'matrix', 'solvers', 'backend', 'compute', 'files', 'containers', 'schemes', 'models'],
      ...['runtime', 'calibrate'],
    ],
    allocate: [
      ...['messages', 'matrix', 'solvers', 'backend', 'compute', 'files', 'containers', 'schemes', 'models'],
      ...['runtime', 'calibrate'],
    ],
    serve: ['messages', 'compute', 'files', 'runtime'],
    queue: ['messages', 'matrix', 'backend', 'compute', 'files', 'containers', 'models', 'calibrate', 'tune'],
    cli: [
      ...['messages', 'matrix', 'backend', 'compute', 'files', 'models', 'runtime', 'calibrate', 'allocate', 'serve'],
      'queue',
    ],
  };
  /** The room that a file is in; '' for files directly in lib/. */
  const roomOf = (file: string) => (posix.dirname(file) === 'lib' ? '' : file.split('/')[1]!);

  test('there are some', () => {
    expect([...edges.values()].flat().length).toBeGreaterThan(50);
  });

  test('the table goes down, and has every room', () => {
    const names = Object.keys(ROOMS);
    for (const [i, below] of Object.values(ROOMS).entries()) {
      expect(below.filter((room) => !names.slice(0, i).includes(room))).toEqual([]);
    }
    expect([...new Set([...edges.keys()].map(roomOf))].filter((room) => room !== '').sort()).toEqual(names.sort());
  });

  test('go down, as the table says and docs/architecture.md draws', () => {
    const wrong: string[] = [];
    for (const [file, targets] of edges) {
      const from = roomOf(file);
      for (const target of targets) {
        const to = roomOf(target);
        if (from === '' || to === from || target === 'binding.ts' || ROOMS[from]!.includes(to)) continue;
        wrong.push(`${file} -> ${target}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  test('rooms are small: at most 20 files in a folder, at most 300 lines in a file', () => {
    const counts = new Map<string, number>();
    for (const file of edges.keys()) counts.set(posix.dirname(file), (counts.get(posix.dirname(file)) ?? 0) + 1);
    expect([...counts].filter(([, count]) => count > 20)).toEqual([]);
    const lines = (file: string) => readFileSync(join(root, file), 'utf8').split('\n').length - 1;
    expect([...edges.keys()].filter((file) => lines(file) > 300)).toEqual([]);
  });

  test('the path of a model knows no container and no scheme, but their interfaces and lists', () => {
    const path = [...edges].filter(([file]) => ['models', 'runtime', 'cli'].includes(roomOf(file)));
    expect(path.length).toBeGreaterThan(40);
    const formats = path.flatMap(([file, targets]) =>
      targets
        .filter((target) => /^lib\/(containers|schemes)\/[^/]+\//.test(target))
        .map((target) => `${file} -> ${target}`),
    );
    expect(formats).toEqual([]);
    // What only schemes and containers may spell: keys, names of types, and where config.json says so.
    const spelt =
      /\bW_q\b|\.(?:scale|zero|stores_quant_config|encoded_state_dict)[`']|'(?:B?F16|F32|F64|[IU](?:8|16|32|64)|BOOL)'/;
    const naming = [...edges.keys()].filter((file) => {
      if (/^lib\/(schemes|containers\/(safetensors|gguf|onnx))\/|^lib\/containers\/stored-types\.ts$/.test(file))
        return false;
      const code = readFileSync(join(root, file), 'utf8').replaceAll(/\/\*.*?\*\/|\/\/[^\n]*/gs, '');
      return spelt.test(code) || (roomOf(file) !== 'runtime' && code.includes('quantization_config'));
    });
    expect(naming).toEqual([]);
  });

  test('the two backends do not know each other', () => {
    const from = (folder: string) =>
      [...edges].filter(([file]) => file.startsWith(folder)).flatMap(([, targets]) => targets);
    expect(from('lib/backend/native/').filter((target) => target.startsWith('lib/backend/js/'))).toEqual([]);
    expect(from('lib/backend/js/').filter((target) => target.startsWith('lib/backend/native/'))).toEqual([]);
  });

  test('nothing that computes knows Node, but by host.ts, whose place host-js.ts takes in hqq/js', () => {
    const reached = new Set<string>();
    const visit = (file: string) => {
      if (reached.has(file) || file === 'lib/compute/host.ts' || file === 'binding.ts') return;
      reached.add(file);
      for (const target of edges.get(file) ?? []) visit(target);
    };
    visit('lib/compute/linear.ts');
    visit('lib/compute/host-js.ts');
    expect(reached).toContain('lib/backend/js/solve/hqq.ts');
    const naming = [...reached].filter((file) =>
      /\bnode:|\bprocess\.\w|\bBuffer\.\w/.test(readFileSync(join(root, file), 'utf8')),
    );
    expect(naming).toEqual([]);
  });

  test('nobody imports the barrel, and nothing goes in circles', () => {
    expect([...edges].filter(([, targets]) => targets.includes('lib/index.ts'))).toEqual([]);
    expect(cycleIn(edges)).toBeUndefined();
  });
});

describe('includes of native', () => {
  const files = filesBelow('native', ['.h', '.cc']).filter((file) => !file.startsWith('native/tests'));
  const edges = graph(files, /#include "([^"]+)"/g);
  const ALLOWED: Readonly<Record<string, readonly string[]>> = {
    'native/core': ['native/kernels/table.h'],
    'native/kernels': [
      ...['native/simd', 'native/core/block_types.h', 'native/core/formats.h', 'native/core/types.h'],
      ...['native/kernels/blocks/encode.h', 'native/kernels/solve/solvers.h'],
      ...['native/kernels/tune/table.h', 'native/kernels/tune/tune.h'],
    ],
    'native/kernels/blocks': ['native/kernels/convert.h'],
    'native/kernels/tune': ['native/kernels/layers.h', 'native/kernels/encoder-layers.h', 'native/kernels/tile.h'],
    'native/kernels/solve': [
      ...['native/simd', 'native/kernels/bits.h', 'native/kernels/convert.h', 'native/kernels/table.h'],
    ],
    'native/simd': [],
    'native/isa': ['native/kernels', 'native/simd'],
    'native/addon': ['native/core', 'native/isa/cpu.h', 'native/isa/dispatch.h', 'native/kernels/table.h'],
    'native/fuzz': ['native/addon', 'native/isa/dispatch.h'],
  };

  test('go the way that docs/architecture.md draws', () => {
    const wrong: string[] = [];
    for (const [file, targets] of edges) {
      const from = posix.dirname(file);
      for (const target of targets) {
        if (posix.dirname(target) === from) continue;
        if (!ALLOWED[from]?.some((allowed) => target === allowed || posix.dirname(target) === allowed))
          wrong.push(`${file} -> ${target}`);
      }
    }
    expect(edges.size).toBeGreaterThan(20);
    expect(wrong).toEqual([]);
    expect(cycleIn(edges)).toBeUndefined();
  });

  test('only parallel.cc names OpenMP, only isa and simd include intrinsics', () => {
    const naming = (pattern: RegExp) => files.filter((file) => pattern.test(readFileSync(join(root, file), 'utf8')));
    expect(naming(/#include <omp\.h>|#pragma omp/)).toEqual(['native/core/parallel.cc']);
    expect(naming(/#include <(immintrin|arm_neon)\.h>/).every((file) => file.startsWith('native/simd/'))).toBe(true);
    expect(naming(/#include <napi\.h>/)).toEqual(['native/addon/napi.h']);
  });
});

test('no file holds the marks of a merge that was not finished', () => {
  const folders = ['bench', 'docs', 'examples', 'interop', 'lib', 'native', 'scripts', 'test', 'cmake'];
  const endings = [
    '.cc',
    '.cmake',
    '.css',
    '.h',
    '.html',
    '.js',
    '.json',
    '.md',
    '.mjs',
    '.py',
    '.sh',
    '.ts',
    '.txt',
    '.yml',
  ];
  const below = folders
    .flatMap((folder) => filesBelow(folder, endings))
    .filter((file) => !file.includes('node_modules/'));
  const atRoot = readdirSync(root).filter((file) => endings.some((ending) => file.endsWith(ending)));
  const marked = [...atRoot, ...below].filter((file) =>
    /^(<{7}|>{7}|\|{7}) /m.test(readFileSync(join(root, file), 'utf8')),
  );
  expect(below.length).toBeGreaterThan(500);
  expect(marked).toEqual([]);
});

test('files of tests that replace modules, or measure memory, have a process of their own', () => {
  const apart = /const APART = (\[[^\]]*\]);/.exec(readFileSync(join(root, 'vitest.config.ts'), 'utf8'))![1]!;
  const asking = filesBelow('test', ['.test.ts']).filter((file) =>
    /\bvi\.(mock|doMock)\(|\bprocess\.memoryUsage\b/.test(readFileSync(join(root, file), 'utf8').replaceAll('\\b', '')),
  );
  expect(asking.filter((file) => !apart.includes(`'${file}'`) && file !== 'test/architecture.test.ts')).toEqual([]);
});
