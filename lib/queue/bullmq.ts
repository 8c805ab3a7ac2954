import { createRequire } from 'node:module';
import path from 'node:path';
import type * as BullMq from 'bullmq';

/**
 * BullMQ as seen from here, else from the folder `other`; its client of Redis has to be there, too. Throws where they are in neither. The
 * CommonJS build takes bullmq-cjs.ts instead.
 */
export function requireBullMq(other: string): typeof BullMq {
  // Written for tracers and bundlers, as backend/native/gyp.ts is.
  const req = createRequire(import.meta.url || path.join(other, 'package.json'));
  try {
    req.resolve('ioredis');
    return req('bullmq') as typeof BullMq;
  } catch {
    req.resolve('ioredis', { paths: [other] });
    return req(req.resolve('bullmq', { paths: [other] })) as typeof BullMq;
  }
}
