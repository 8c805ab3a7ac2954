import type { RunnableGraph } from '../../containers/runnable.js';
import { inTurns } from '../../files/event-loop.js';
import { Shares } from '../shares.js';
import { numbersFor, randomFeeds } from './feeds.js';
import type { GraphRun } from './run.js';

/** How far, relatively, logits of a language model may move where only what follows is another: what engines round. */
const SAME = 1e-4;

/** Which random numbers inputs besides ids are made of. */
interface Chance {
  readonly seed: number;
  readonly index: number;
}

/**
 * The share that a graph gives each of `tokens` of being the next one, the mean over all places of texts. Undefined of a graph that gives
 * no logits of them, or whose logits know what follows: those of an encoder say which token stands there.
 */
export async function expectedOf(
  run: GraphRun,
  { path, inputs, logits }: RunnableGraph,
  tokens: number,
  texts: readonly Uint32Array[],
  { seed, index, signal }: Chance & { readonly signal: AbortSignal | undefined },
): Promise<Float64Array | undefined> {
  if (logits === undefined || texts.length === 0) return undefined;
  const first = texts[0]!;
  // The first text once more, with another end.
  const other = Uint32Array.from(first, (id, i) => (i === first.length - 1 ? (id + 1) % tokens : id));
  const feeds = [...texts, other].map((ids) =>
    randomFeeds(path, inputs, { length: ids.length, random: numbersFor(seed, index), ids }),
  );
  const shares: Shares[] = [];
  let before: Float32Array = new Float32Array();
  let fits = true;
  const { value, parts } = logits;
  await run.run({
    ...{ feeds, parts, signal },
    async look(_, tensor, at) {
      const width = tensor.dims.at(-1) ?? 0;
      // Of half as many as there are tokens: vocabularies are padded, classes are few.
      if (!fits || width < tokens / 2) return void (fits = false);
      const rows = run.rows(value, tensor);
      if (at === 0) before = rows;
      if (at < texts.length) await inTurns((shares[0] ??= new Shares(width)).add(rows), signal);
      else fits = isSame(before, rows, (Math.min(rows.length / width, first.length) - 1) * width);
    },
  });
  return fits ? shares[0]?.take().subarray(0, tokens) : undefined;
}

/** Whether the first `count` numbers are alike. */
function isSame(a: Float32Array, b: Float32Array, count: number): boolean {
  let [far, size] = [0, 0];
  for (let i = 0; i < count; i++) {
    far += (a[i]! - b[i]!) ** 2;
    size += a[i]! ** 2;
  }
  return far <= SAME ** 2 * size;
}
