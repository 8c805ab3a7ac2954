import { formatRate, formatWait } from '../../messages/units.js';
import type { Progress } from '../../models/report.js';

/** How far a piece of work is. */
export interface Stand {
  /** How much is done, of `total`. */
  readonly done: number;
  readonly total: number;
  /** What is counted, where its speed says something: `weights`. */
  readonly unit?: string;
  /** Which of how many things it is at. */
  readonly step?: readonly [at: number, of: number];
  /** What it is at. */
  readonly name?: string;
  /** What is being done, where it is not what the whole command does: it has a bar of its own. */
  readonly verb?: string;
}

/** A stand in words, each '' where there is nothing to say. */
interface StandWords {
  readonly percent: string;
  readonly step: string;
  readonly rate: string;
  readonly left: string;
}

/** Seconds before the first guess of what is left: the first tensors tell little. */
const SETTLE_SECONDS = 0.5;

/** The stand of a conversion. */
export function standOf({
  tensor,
  weightsDone,
  weightsTotal,
  tensorsDone,
  tensorsTotal,
  importance,
  tuning,
}: Progress): Stand {
  if (importance) return standOfImportance(importance);
  if (tuning) return standOfTuning(tuning);
  const step = [Math.min(tensorsDone + 1, tensorsTotal), tensorsTotal] as const;
  return { done: weightsDone, total: weightsTotal, unit: 'weights', step, name: tensor };
}

const VERBS = {
  expecting: 'finding likely tokens',
  writing: 'writing a text',
  reading: 'finding importance',
} as const satisfies Record<NonNullable<Progress['importance']>['phase'], string>;

/** The stand of what finds importance. */
export function standOfImportance({ phase, done, total }: NonNullable<Progress['importance']>): Stand {
  return { done, total, unit: 'tokens', verb: VERBS[phase] };
}

/** The stand of tuning. */
function standOfTuning({ done, total, block, blocks }: NonNullable<Progress['tuning']>): Stand {
  return { done, total, step: [block + 1, blocks], verb: 'tuning' };
}

/** What a stand says after so many seconds. */
export function words({ done, total, unit, step }: Stand, seconds: number): StandWords {
  const share = total > 0 ? Math.min(done / total, 1) : 1;
  const settled = done > 0 && seconds > SETTLE_SECONDS;
  return {
    percent: `${String(Math.floor(share * 100)).padStart(3)} %`,
    step: step ? `${String(step[0]).padStart(String(step[1]).length)}/${step[1]}` : '',
    rate: unit === undefined ? '' : formatRate(done, seconds, unit),
    left: settled ? `${formatWait(((total - done) / done) * seconds)} left` : '',
  };
}
