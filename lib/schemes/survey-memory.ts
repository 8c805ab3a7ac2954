import type { Scratch } from '../containers/scratch.js';

/** Memory that a survey may use: `looks` from when `free` is done till it is settled, `kept` till all is encoded. */
export interface SurveyMemory {
  readonly looks: Scratch;
  /** Absent: at once. */
  readonly free: Promise<void> | undefined;
  readonly kept: Scratch;
}
