// ggml's own quantizer and decoders, and llama.cpp's engine: ggml.c and engine.c, compiled where this runs, with the library that
// node-llama-cpp brings.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** ggml's numbers of its types. */
export const GGML_TYPES = {
  ...{ Q4_0: 2, Q4_1: 3, Q5_0: 6, Q5_1: 7, Q8_0: 8, Q2_K: 10, Q3_K: 11, Q4_K: 12, Q5_K: 13, Q6_K: 14 },
  ...{ IQ4_NL: 20, IQ4_XS: 23 },
};

/** llama.cpp's numbers of what a file is quantized to; types alone are of no mix. */
export const FILE_TYPES = {
  ...{ Q4_0: 2, Q4_1: 3, Q8_0: 7, Q5_0: 8, Q5_1: 9, Q2_K: 10, Q3_K_S: 11, Q3_K_M: 12, Q3_K_L: 13, Q4_K_S: 14 },
  ...{ Q4_K_M: 15, Q5_K_S: 16, Q5_K_M: 17, Q6_K: 18 },
  ...{ Q3_K: 12, Q4_K: 15, Q5_K: 17 },
};

function folderOfLibraries() {
  try {
    const main = createRequire(import.meta.url).resolve('@node-llama-cpp/linux-x64');
    const folder = join(dirname(main), '..', 'bins', 'linux-x64');
    return existsSync(folder) ? folder : undefined;
  } catch {
    return undefined;
  }
}

/** A sentence on why ggml cannot be had; undefined where it can. */
export function missingGgml() {
  if (process.platform !== 'linux' || process.arch !== 'x64') return 'ggml is taken from a library for Linux on x64.';
  if (folderOfLibraries() === undefined)
    return 'node-llama-cpp is not installed in interop/llama.cpp: npm run test:interop installs it.';
  if (spawnSync('cc', ['--version']).error !== undefined) return 'There is no C compiler (cc).';
  return undefined;
}

const bytesOf = (array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/** Compiles, and gives what there is; `close` removes what was made. */
export function openGgml() {
  const folder = mkdtempSync(join(tmpdir(), 'hqq-ggml-'));
  const at = (name) => join(folder, name);
  for (const name of ['ggml', 'engine']) {
    const source = fileURLToPath(new URL(`${name}.c`, import.meta.url));
    execFileSync('cc', ['-O2', source, '-o', at(name), '-ldl', '-lm'], { stdio: 'inherit' });
  }
  const libraries = folderOfLibraries();
  const call = (program, library, words) =>
    execFileSync(at(program), [join(libraries, library), ...words.map(String)], { encoding: 'utf8', stdio: 'pipe' });
  const run = (...words) => call('ggml', 'libggml-base.so', words);
  const llama = readdirSync(libraries).find((name) => /^libllama\.(v[\d.]+\.)?so$/.test(name));
  return {
    /** Blocks of weights `[rows, columns]`, and the seconds that they took, on one thread. */
    quantize(type, columns, weights, importance) {
      writeFileSync(at('weights'), bytesOf(weights));
      const more = importance === undefined ? [] : [at('importance')];
      if (importance !== undefined) writeFileSync(at('importance'), bytesOf(importance));
      const seconds = Number(run('quantize', GGML_TYPES[type], columns, at('weights'), at('blocks'), ...more));
      return { blocks: new Uint8Array(readFileSync(at('blocks'))), seconds };
    },
    /** The weights that blocks are. */
    decode(type, blocks) {
      writeFileSync(at('blocks'), blocks);
      run('decode', GGML_TYPES[type], at('blocks'), at('weights'));
      const bytes = new Uint8Array(readFileSync(at('weights')));
      return new Float32Array(bytes.buffer);
    },
    /** A GGUF file of floats, quantized by llama.cpp: to one type, or `pure: false` to the mix of that name. */
    quantizeModel(from, to, type, { pure = false } = {}) {
      call('ggml', llama, ['model', FILE_TYPES[type], pure ? 1 : 0, from, to]);
    },
    /** Mean nats of a token in llama.cpp, of each window of ids; the first token of a window is only read. */
    nats(file, ids, window) {
      writeFileSync(at('ids'), Int32Array.from(ids));
      return call('engine', llama, [file, at('ids'), window])
        .trim()
        .split('\n')
        .map(Number);
    },
    close: () => rmSync(folder, { recursive: true, force: true }),
  };
}
