// What bench/soak.mjs looks at in the process of `hqq serve`: node --import this. Tells its parent when it is asked.
import { monitorEventLoopDelay } from 'node:perf_hooks';

const RESOLUTION = 1;
const delay = monitorEventLoopDelay({ resolution: RESOLUTION });

process.on('message', (word) => {
  // The histogram counts the timer's own interval: what lies beyond it is delay.
  const at = (nanoseconds) => Math.max(0, nanoseconds / 1e6 - RESOLUTION);
  const { heapUsed, rss } = process.memoryUsage();
  const told = { p50: at(delay.percentile(50)), p99: at(delay.percentile(99)), max: at(delay.max) };
  if (word === 'begin') {
    delay.reset();
    delay.enable();
  }
  process.send({ heapUsed, rss, eventLoop: told });
});
process.channel?.unref();
