import * as fs from 'node:fs';
import { dirname } from 'node:path';
import { createWorker } from '../../lib/queue/entry.js';
import type { WorkerEvent, WorkerOptions } from '../../lib/queue/options.js';
import type { QueueWorker } from '../../lib/queue/worker.js';
import { freshPath } from './checkpoints.js';
import { Redis } from './redis.js';

/** A Redis, the folder that all see, and workers that are closed after each test (`rest`). */
export class SharedQueue {
  readonly redis = new Redis();
  readonly root = fs.realpathSync(dirname(dirname(freshPath())));
  readonly workers: QueueWorker[] = [];

  /** Another worker. @returns what it tells, as it does */
  async work(more: Partial<WorkerOptions> = {}): Promise<WorkerEvent[]> {
    const events: WorkerEvent[] = [];
    const onEvent = (event: WorkerEvent) => void events.push(event);
    this.workers.push(await createWorker({ url: this.redis.url, root: this.root, onEvent, threads: 1, ...more }));
    return events;
  }

  async rest(): Promise<void> {
    await Promise.all(this.workers.splice(0).map((worker) => worker.close({ now: true })));
  }
}
