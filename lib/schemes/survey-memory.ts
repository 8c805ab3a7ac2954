import type { Scratch } from '../containers/scratch.js';

/** Memory that a survey may use: `looks` till it is settled, `kept` till all is encoded. */
export interface SurveyMemory {
  readonly looks: Scratch;
  readonly kept: Scratch;
}
