import type * as BullMq from 'bullmq';

declare const require: NodeJS.Require;

/** The place of bullmq.ts in the CommonJS build: a plain `require`, which programs that trace files follow. */
export function requireBullMq(other: string): typeof BullMq {
  try {
    require.resolve('ioredis');
    return require('bullmq') as typeof BullMq;
  } catch {
    require.resolve('ioredis', { paths: [other] });
    return require(require.resolve('bullmq', { paths: [other] })) as typeof BullMq;
  }
}
