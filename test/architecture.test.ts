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
  /** What a folder of lib/ may import besides itself and the files directly in lib/. */
  const ALLOWED: Readonly<Record<string, readonly string[]>> = {
    lib: ['lib/backend', 'lib/checkpoint'],
    'lib/backend': [],
    'lib/safetensors': [],
    'lib/checkpoint': ['lib/safetensors', 'lib/backend'],
    'lib/runtime': ['lib/checkpoint', 'lib/safetensors', 'lib/backend'],
    'lib/cli': ['lib/checkpoint', 'lib/runtime', 'lib/safetensors', 'lib/backend'],
  };

  test('there are some', () => {
    expect([...edges.values()].flat().length).toBeGreaterThan(50);
  });

  test('go the way that docs/architecture.md draws', () => {
    const wrong: string[] = [];
    for (const [file, targets] of edges) {
      const from = posix.dirname(file);
      for (const target of targets) {
        const to = posix.dirname(target);
        if (to === from || to === 'lib' || target === 'binding.ts') continue;
        const allowed = ALLOWED[from]?.includes(to) ?? false;
        // Of the files directly in lib/, only index.ts may know checkpoints.
        if (!allowed || (from === 'lib' && to === 'lib/checkpoint' && file !== 'lib/index.ts'))
          wrong.push(`${file} -> ${target}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  test('the two backends do not know each other', () => {
    expect(edges.get('lib/backend/native.ts')?.filter((target) => target.startsWith('lib/backend/js'))).toEqual([]);
    for (const file of [
      'lib/backend/js.ts',
      'lib/backend/js-solve.ts',
      'lib/backend/lanes.ts',
      'lib/backend/slices.ts',
    ]) {
      expect(edges.get(file)).not.toContain('lib/backend/native.ts');
    }
  });

  test('nothing that computes knows Node, but by host.ts, whose place host-js.ts takes in hqq/js', () => {
    const reached = new Set<string>();
    const visit = (file: string) => {
      if (reached.has(file) || file === 'lib/host.ts' || file === 'binding.ts') return;
      reached.add(file);
      for (const target of edges.get(file) ?? []) visit(target);
    };
    visit('lib/linear.ts');
    visit('lib/host-js.ts');
    expect(reached).toContain('lib/backend/js-solve.ts');
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
    'native/kernels': ['native/simd', 'native/core/format.h', 'native/core/types.h'],
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
