import { Plan } from '../../runtime/blocks/plan.js';
import { type EncoderBlock, EncoderFrame } from '../../runtime/encoder/encoder-block.js';
import { Room } from './room.js';
import { type Recorded, type Tape, tapeOf } from './tape.js';

/**
 * Records a block of an encoder. What it computes in is its own.
 *
 * @throws {HqqError} as `recordBlock`
 */
export function recordEncoderBlock(block: EncoderBlock, recorded: Recorded, room = new Room()): Tape {
  const { config, machine } = block;
  const { lengths } = recorded;
  const rows = lengths.reduce((sum, length) => sum + length, 0);
  const hidden = room.take(rows * config.hiddenSize);
  return tapeOf({ hidden, linears: block.linears, machine, room }, recorded, (replaced) => {
    const plan = new Plan(machine.threads);
    block.with(replaced).addTo(plan, hidden, new EncoderFrame(config, rows, Math.max(...lengths)), lengths);
    return plan;
  });
}
