import type { Backend, Step } from '../../../binding.js';
import { prepareSequences } from '../../compute/run.js';
import type { Block } from './block.js';
import { Plan } from './plan.js';
import type { Workspace } from './workspace.js';

/**
 * What blocks do before the first attention, between each and the next, and after the last. In one workspace it is the same at
 * every position of a text.
 */
function stepsBetween(blocks: readonly Block[], space: Workspace, threads: number): readonly Step[][] {
  return Array.from({ length: blocks.length + 1 }, (_, i) => {
    const plan = new Plan(threads);
    blocks[i - 1]?.addAfter(plan, space);
    blocks[i]?.addBefore(plan, space);
    return plan.steps;
  });
}

/** The same, each as a step whose arguments were read: a backend need not read them again. */
export function prepareBetween(
  backend: Backend,
  blocks: readonly Block[],
  space: Workspace,
  threads: number,
): readonly Step[] {
  const parts = stepsBetween(blocks, space, threads);
  const sequences = prepareSequences(backend, parts);
  return parts.map((_, index) => ({ operation: 'prepared', args: { sequences, index } }));
}
