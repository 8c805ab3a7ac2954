import { HqqError, type HqqErrorCode } from '../messages/errors.js';
import type { Command } from './command.js';
import { kebab, UsageError } from './flags.js';
import { Interruption } from './process.js';

/** What went wrong, for people and for scripts. */
interface Failure {
  /** Exit status. */
  readonly status: number;
  /** What `--json` says: the library's codes, Node.js' own for an abort, and one for a fault of this program. */
  readonly code: HqqErrorCode | 'ABORT_ERR' | 'ERR_INTERNAL';
  /** One paragraph. */
  readonly message: string;
}

/** What the library says of an option, as the command line spells it: which options go together is the library's to know. */
function namingFlags(message: string, { flags }: Command): string {
  return message.replace(
    /^(?:overrides\[(.*?)\]: )?Expected (\w+) to be /,
    (whole, glob: string | undefined, name: string) => {
      if (!(name in flags)) return whole;
      return glob === undefined
        ? `Expected --${kebab(name)} to be `
        : `Expected ${kebab(name)} in --override ${glob} to be `;
    },
  );
}

/** What a run failed of; `command` is what it ran, if it came that far. */
export function failureOf(error: unknown, command: Command | undefined): Failure {
  if (error instanceof Interruption) {
    const message = command && 'out' in command.flags ? 'interrupted; nothing was written.' : 'interrupted.';
    return { status: error.status, code: 'ABORT_ERR', message };
  }
  if (error instanceof UsageError) {
    const message = `${error.message} See hqq ${command ? `${command.name} ` : ''}--help.`;
    return { status: 2, code: 'ERR_INVALID_OPTION', message };
  }
  if (error instanceof HqqError) {
    const { code } = error;
    const isUsage = code === 'ERR_INVALID_OPTION';
    const message = isUsage && command ? namingFlags(error.message, command) : error.message;
    return { status: isUsage ? 2 : 1, code, message };
  }
  const message = error instanceof Error ? error.message : String(error);
  const paragraph = message
    .trim()
    .replaceAll(/\s*\n\s*/g, ' ')
    .replace(/\.?$/, '.');
  const advice = 'This is a bug: please report it, with what HQQ_DEBUG=1 adds to this message.';
  return { status: 1, code: 'ERR_INTERNAL', message: `${paragraph} ${advice}` };
}
