import { collectImportance } from '../../calibrate/collect.js';
import { checkStatisticsOutput, saveStatistics } from '../../calibrate/statistics-file.js';
import { quote } from '../../messages/text.js';
import { formatCount, plural } from '../../messages/units.js';
import { defineCommand, toJson } from '../command.js';
import { FORCE, IMPORTANCE_FLAGS, JSON_FLAG, OUT, QUIET, THREADS, UsageError } from '../flags.js';
import { withProgress } from '../show/progress.js';
import { shellWord } from '../show/shell-word.js';
import { standOfImportance } from '../show/stand.js';

export const calibrate = defineCommand({
  name: 'calibrate',
  args: ['model'],
  summary: "find which of a model's input features count, for later",
  details: [
    'Runs a language model block by block, and writes the mean of the squares that go into each linear layer. hqq quantize finds the',
    'same by itself; with --importance <file> it takes what is here, for any number of runs and on any machine.',
  ].join('\n'),
  flags: {
    out: { ...OUT, help: 'where to write: a .safetensors file' },
    ...IMPORTANCE_FLAGS,
    importance: { ...IMPORTANCE_FLAGS.importance, default: 'random' },
    threads: THREADS,
    force: FORCE,
    json: JSON_FLAG,
    quiet: QUIET,
  },
  plan([model], { out, importance = 'random', seed, tokens, threads, force = false, json = false, quiet = false }) {
    if (importance === 'none')
      throw new UsageError('Expected --importance to be random, own, text:<file> or a file of statistics, got "none".');
    if (/\.gguf$/i.test(out!))
      throw new UsageError(
        `Expected --out to be a .safetensors file, got ${quote(out!)}. An imatrix of llama.cpp is read, not written.`,
      );
    const from = importance === 'auto' ? 'random' : importance;
    return async ({ signal, print }) => {
      await checkStatisticsOutput(out!, model!, force); // before minutes of computing
      const statistics = await withProgress('finding importance', !json && !quiet, (update) =>
        collectImportance(model!, {
          ...{ importance: from, seed, tokens, threads, signal },
          onProgress: (progress) => update(standOfImportance(progress)),
        }),
      );
      const drawn = statistics.source === 'random' || statistics.source === 'own';
      await saveStatistics(out!, statistics, { force, seed: drawn ? (seed ?? 0) : undefined });
      const { source, tokens: read, meanSquares } = statistics;
      if (json) print(toJson({ model, output: out, source, tokens: read, layers: meanSquares.size }), out);
      else if (!quiet) {
        const text = read === undefined ? '' : `, ${formatCount(read)} tokens`;
        const next = `hqq quantize ${shellWord(model!)} --out <path> --importance ${shellWord(out!)}`;
        print(`${plural(meanSquares.size, 'layer')} (${source}${text})\nNext: ${next}\n`, out);
      }
    };
  },
});
