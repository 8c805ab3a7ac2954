import cliProgress from 'cli-progress';
import { formatRate, formatWait } from '../../messages/units.js';
import type { Progress } from '../../models/report.js';

const BAR_WIDTH = 24;
const NARROW_BAR_WIDTH = 12;
const NARROW_COLUMNS = 100;
const SHORTEST_NAME = 12;
/** `1.23 M weights/s`: numbers stay where they are while they change. */
const RATE_WIDTH = 16;

/** Seconds before the first guess of what is left: the first tensors tell little. */
const SETTLE_SECONDS = 0.5;

/** The bar that is on the screen. There is one terminal, and so at most one bar. */
let current: ProgressBar | undefined;

/** How far a conversion is, on standard error: shown on a terminal only, gone when it is over. */
export class ProgressBar {
  readonly #bar: cliProgress.SingleBar | undefined;
  readonly #verb: string;
  readonly #started = performance.now();
  #running = false;

  /** `verb` says what is being done; `shown` is false for `--quiet` and `--json`. */
  constructor(verb: string, shown: boolean) {
    this.#verb = verb;
    const { stderr, env } = process;
    if (!shown || !stderr.isTTY || env.TERM === 'dumb') return;
    this.#bar = new cliProgress.SingleBar({
      stream: stderr,
      format: (_options, params, payload: { line?: (share: number) => string }) =>
        payload.line?.(params.progress) ?? '',
      clearOnComplete: true,
      linewrap: true, // lines fit; nothing is switched off that a kill would leave off
      gracefulExit: false, // signals are main's
      fps: 10,
      emptyOnZero: true,
    });
  }

  /** To be passed as `onProgress`. */
  readonly update = (progress: Progress): void => {
    if (!this.#bar) return;
    const line = (share: number) => this.#line(progress, share);
    if (!this.#running) {
      this.#running = true;
      current = this;
      this.#bar.start(progress.weightsTotal, progress.weightsDone, { line });
    } else {
      this.#bar.update(progress.weightsDone, { line });
    }
  };

  /** Takes the bar off the screen, if it is on it. */
  stop(): void {
    if (!this.#running) return;
    this.#running = false;
    this.#bar?.stop();
    current = undefined;
  }

  /** Empties its line, which the next update draws anew below. */
  erase(): void {
    process.stderr.write('\r\x1b[K');
  }

  #line({ tensor, weightsDone, weightsTotal, tensorsDone, tensorsTotal }: Progress, share: number): string {
    const seconds = (performance.now() - this.#started) / 1000;
    const columns = process.stderr.columns || 80;
    const width = columns < NARROW_COLUMNS ? NARROW_BAR_WIDTH : BAR_WIDTH;
    const filled = Math.round(share * width);
    const bar = '#'.repeat(filled) + '.'.repeat(width - filled);
    const left =
      weightsDone > 0 && seconds > SETTLE_SECONDS ? ((weightsTotal - weightsDone) / weightsDone) * seconds : undefined;
    const parts = [
      `${this.#verb} [${bar}] ${String(Math.floor(share * 100)).padStart(3)} %`,
      `${String(Math.min(tensorsDone + 1, tensorsTotal)).padStart(String(tensorsTotal).length)}/${tensorsTotal}`,
      formatRate(weightsDone, seconds).padStart(RATE_WIDTH),
      left === undefined ? '' : `${formatWait(left)} left`,
    ].filter((part) => part !== '');
    const rest = parts.join('  ');
    const room = columns - rest.length - 3; // the last column stays free: some terminals wrap there
    return room < SHORTEST_NAME ? rest : `${rest}  ${shorten(tensor, room)}`;
  }
}

/** The end of a name tells tensors apart, the beginning is the same for all. */
function shorten(name: string, room: number): string {
  const printable = name.replaceAll(/\p{C}/gu, '?');
  return printable.length <= room ? printable : `...${printable.slice(printable.length - room + 3)}`;
}

/** Makes room on the terminal for a line of text. */
export function eraseProgress(): void {
  current?.erase();
}

/** Takes the bar off the screen, whatever happened to the command that drew it. */
export function endProgress(): void {
  current?.stop();
}

/** Runs `work` with a bar that is gone afterwards, also when it fails. */
export async function withProgress<T>(
  verb: string,
  shown: boolean,
  work: (bar: ProgressBar) => Promise<T>,
): Promise<T> {
  const bar = new ProgressBar(verb, shown);
  try {
    return await work(bar);
  } finally {
    bar.stop();
  }
}
