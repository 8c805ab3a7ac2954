import { plain, quote } from '../../messages/text.js';
import { formatCount } from '../../messages/units.js';
import type { ArchitectureInfo } from '../../models/select/describe.js';
import { families, times } from './families.js';

/** Most modules that a line names. */
const MOST_NAMED = 2;
const HELD = { source: 'the files hold the second', module: 'the files hold the first', both: 'the files hold both' };

/** Rows of a summary: the class of a model, its modules by kind, and which are tied. */
export function architectureRows({ name, known, modules = {}, tied = [] }: ArchitectureInfo): [string, string][] {
  if (!known) {
    const which = name === undefined ? 'config.json names none' : quote(name);
    return [['architecture', `unknown (${which}): names and shapes tell what is a layer`]];
  }
  const rows: [string, string][] = [['architecture', plain(name!)]];
  const kinds = Object.entries(modules).map(([kind, names]) => {
    const groups = families(
      names.map((text) => ({ name: text })),
      () => '',
      MOST_NAMED + 1,
    );
    const few = kind !== 'linear' && groups.length <= MOST_NAMED;
    const which = groups.map(
      (group) => `${plain(group.name)}${group.members.length > 1 ? ` ${times(group.members.length)}` : ''}`,
    );
    return `${formatCount(names.length)} ${kind}${few ? ` (${which.join(', ')})` : ''}`;
  });
  if (kinds.length > 0) rows.push(['modules', kinds.join('\n')]);
  const lines = tied
    .slice(0, MOST_NAMED * 2)
    .map(({ module, source, held }) => `${plain(module)} is ${plain(source)}; ${HELD[held]}`);
  if (tied.length > lines.length) lines.push(`and ${tied.length - lines.length} more`);
  if (lines.length > 0) rows.push(['tied', lines.join('\n')]);
  return rows;
}
