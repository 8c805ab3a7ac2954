import cliProgress from 'cli-progress';
import { columnsOf } from './columns.js';
import { type Stand, words } from './stand.js';

/** Characters of the bar, on terminals of so many columns and more; narrower ones have none. */
const BARS = [
  { columns: 100, width: 24 },
  { columns: 60, width: 12 },
] as const;
const SHORTEST_NAME = 12;
/** `1.23 M weights/s`: numbers stay where they are while they change. */
const RATE_WIDTH = 16;

/** The bar that is on the screen. There is one terminal, and so at most one bar. */
let current: ProgressBar | undefined;

/** How far a piece of work is, on a terminal: one line, which is gone when it is over. */
class ProgressBar {
  readonly #bar: cliProgress.SingleBar;
  readonly #verb: string;
  #started = performance.now();
  /** Of the bar on the screen. */
  #shown: string | undefined;
  #running = false;

  constructor(verb: string) {
    this.#verb = verb;
    this.#bar = new cliProgress.SingleBar({
      stream: process.stderr,
      format: (_options, params, payload: { line?: (share: number) => string }) =>
        payload.line?.(params.progress) ?? '',
      clearOnComplete: true,
      linewrap: true, // lines fit; nothing is switched off that a kill would leave off
      gracefulExit: false, // signals are main's
      fps: 10,
      emptyOnZero: true,
    });
  }

  update(stand: Stand): void {
    const line = (share: number) => this.#line(stand, share);
    if (this.#running && stand.verb !== this.#shown) {
      this.stop();
      this.#started = performance.now();
    }
    this.#shown = stand.verb;
    if (!this.#running) {
      this.#running = true;
      current = this;
      this.#bar.start(stand.total, stand.done, { line });
    } else {
      this.#bar.update(stand.done, { line });
    }
  }

  /** Takes the bar off the screen, if it is on it. */
  stop(): void {
    if (!this.#running) return;
    this.#running = false;
    this.#bar.stop();
    current = undefined;
  }

  /** Empties its line, which the next update draws anew below. */
  erase(): void {
    process.stderr.write('\r\x1b[K');
  }

  /** What fits of it: verb and share at least, then time left, count, rate, and the name. */
  #line(stand: Stand, share: number): string {
    const columns = columnsOf(process.stderr) ?? 80;
    const { percent, step, rate, left } = words(stand, (performance.now() - this.#started) / 1000);
    const width = BARS.find((bar) => columns >= bar.columns)?.width;
    const filled = Math.round(share * (width ?? 0));
    const bar = width === undefined ? '' : ` [${'#'.repeat(filled)}${'.'.repeat(width - filled)}]`;
    const speed = rate === '' ? '' : rate.padStart(RATE_WIDTH);
    const start = `${stand.verb ?? this.#verb}${bar} ${percent}`;
    const most = columns - 1; // the last column stays free: some terminals wrap there
    const lines = [[start, step, speed, left], [start, step, left], [start, left], [start]].map((parts) =>
      parts.filter((part) => part !== '').join('  '),
    );
    const line = lines.find(({ length }) => length <= most) ?? percent.trim();
    const room = most - line.length - 2;
    const named = stand.name !== undefined && line === lines[0] && room >= SHORTEST_NAME;
    return named ? `${line}  ${shorten(stand.name, room)}` : line;
  }
}

/** The end of a name tells tensors apart, the beginning is the same for all. */
function shorten(name: string, room: number): string {
  const printable = name.replaceAll(/\p{C}/gu, '?');
  return printable.length <= room ? printable : `...${printable.slice(printable.length - room + 3)}`;
}

/** Milliseconds before the first line where there is no terminal, and between two. A short run says nothing. */
const FIRST_LINE = 10_000;
const NEXT_LINE = 30_000;

/** The same where nothing can be erased: in a log, a line now and then. */
class ProgressLines {
  readonly #verb: string;
  #started = performance.now();
  #shown: string | undefined;
  #due = this.#started + FIRST_LINE;

  constructor(verb: string) {
    this.#verb = verb;
  }

  update(stand: Stand): void {
    const now = performance.now();
    if (stand.verb !== this.#shown) this.#started = now;
    this.#shown = stand.verb;
    if (now < this.#due) return;
    this.#due = now + NEXT_LINE;
    const { percent, step, rate, left } = words(stand, (now - this.#started) / 1000);
    const parts = [`${stand.verb ?? this.#verb} ${percent.trim()}`, step.trim(), rate, left].filter(
      (part) => part !== '',
    );
    process.stderr.write(`hqq: ${parts.join(', ')}\n`);
  }

  stop(): void {}
}

/** Makes room on the terminal for a line of text. */
export function eraseProgress(): void {
  current?.erase();
}

/** Takes the bar off the screen, whatever happened to the command that drew it. */
export function endProgress(): void {
  current?.stop();
}

/**
 * Runs `work`, which tells how far it is: on standard error, as a bar on a terminal, else as a line now and then. `verb` says what
 * is being done; nothing is shown unless `shown`, which is false for `--quiet` and `--json`.
 */
export async function withProgress<T>(
  verb: string,
  shown: boolean,
  work: (update: (stand: Stand) => void) => Promise<T>,
): Promise<T> {
  if (!shown) return work(() => {});
  const { stderr, env } = process;
  const display = stderr.isTTY && env.TERM !== 'dumb' ? new ProgressBar(verb) : new ProgressLines(verb);
  try {
    return await work((stand) => display.update(stand));
  } finally {
    display.stop();
  }
}
