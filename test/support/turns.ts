/** Counts the turns of the event loop from now on; what it gives back stops that, and says how many there were. */
export function countTurns(): () => number {
  let turns = 0;
  let running = true;
  const count = () => {
    turns++;
    if (running) setImmediate(count);
  };
  setImmediate(count);
  return () => {
    running = false;
    return turns;
  };
}
