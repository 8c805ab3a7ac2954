import type { FlowJob, JobsOptions } from 'bullmq';
import { HqqError, type HqqErrorCode, show } from '../messages/errors.js';
import { closeQueue, connectionOf, loadBullMq, PREFIX } from './connection.js';
import { isRun, type Manifest } from './manifest.js';

// The jobs of a run. What is in them is small: all else is in the manifest, beside the output.

/** What a job is of. Plain JSON. */
export interface JobData {
  /** Of this form. */
  readonly version: 1;
  readonly run: string;
  /** Where the manifest is, as `told`. */
  readonly manifest: string;
  /** SHA-256 of the manifest. */
  readonly sha256: string;
}

/** What a job makes. */
export type Task = { readonly kind: 'importance' | 'finish' } | { readonly kind: 'shard'; readonly index: number };

export const jobName = (task: Task): string => (task.kind === 'shard' ? `shard-${task.index}` : task.kind);
export const jobId = (run: string, task: Task): string => `${run}-${jobName(task)}`;

/** What a job makes, as people call it. */
export function whatOf(task: Task, manifest?: Manifest): string {
  return (task.kind === 'shard' && manifest?.shards[task.index]?.file) || jobName(task);
}

/** @throws {HqqError} `ERR_INVALID_OPTION` for what hqq has not put there */
export function checkJob(name: unknown, data: unknown): { readonly task: Task; readonly data: JobData } {
  const refuse = (what: string, got: unknown): never => {
    throw new HqqError('ERR_INVALID_OPTION', `Expected a job of hqq's, got ${show(got)} as its ${what}.`);
  };
  if (typeof data !== 'object' || data === null) return refuse('data', data);
  const { version, run, manifest, sha256 } = data as Record<keyof JobData, unknown>;
  if (version !== 1) return refuse('version', version);
  if (!isRun(run)) return refuse('run', run);
  if (typeof manifest !== 'string') return refuse('manifest', manifest);
  if (typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(sha256)) return refuse('sha256', sha256);
  const task = taskOf(name);
  return task === undefined ? refuse('name', name) : { task, data: { version, run, manifest, sha256 } };
}

function taskOf(name: unknown): Task | undefined {
  if (name === 'importance' || name === 'finish') return { kind: name };
  const index = /^shard-(\d{1,6})$/.exec(String(name))?.[1];
  return index === undefined ? undefined : { kind: 'shard', index: Number(index) };
}

/** Tries of what is done once for the whole run. */
const FEW = 3;

function optionsOf(run: string, task: Task, attempts: number): JobsOptions {
  return {
    jobId: jobId(run, task),
    attempts,
    backoff: { type: 'exponential', delay: 500 },
    removeOnFail: { age: 7 * 24 * 3600 },
    // What is done is told by the files.
    removeOnComplete: { age: 24 * 3600 },
  };
}

/** The job that finds importance, before all others. */
export function importanceJob(data: JobData): readonly [name: string, data: JobData, options: JobsOptions] {
  const task = { kind: 'importance' } as const;
  return [jobName(task), data, optionsOf(data.run, task, FEW)];
}

/** The shards, and the job that waits for all of them and puts the output together. */
function flowOf(data: JobData, { shards, attempts }: Manifest, queueName: string): FlowJob {
  const finish = { kind: 'finish' } as const;
  return {
    ...{ name: jobName(finish), queueName, data, opts: optionsOf(data.run, finish, FEW) },
    children: shards.map((_, index) => {
      const task = { kind: 'shard', index } as const;
      const opts = { ...optionsOf(data.run, task, attempts), failParentOnFailure: true };
      return { name: jobName(task), queueName, data, opts };
    }),
  };
}

/** Adds them, all or none. Those that are there already stay as they are. */
export async function addFlow(url: string, name: string, data: JobData, manifest: Manifest): Promise<void> {
  const producer = new (loadBullMq().FlowProducer)({ connection: connectionOf(url), prefix: PREFIX });
  producer.on('error', () => {}); // what it is asked to do tells
  try {
    await producer.add(flowOf(data, manifest, name));
  } finally {
    await closeQueue(producer);
  }
}

// Failures, as text: all that a queue keeps of an error.

/** `ERR_IO model-00002-of-00040.safetensors: Cannot write ...` */
export function failureText(what: string, error: unknown): string {
  const code = error instanceof HqqError ? error.code : 'ERR_INTERNAL';
  return `${code} ${what}: ${error instanceof Error ? error.message : String(error)}`;
}

/** The error of such a text. */
export function failureOf(text: string): HqqError {
  const [, code, message] = /^(ERR_[A-Z_]+) (.*)$/s.exec(text) ?? [];
  return new HqqError((code ?? 'ERR_INTERNAL') as HqqErrorCode, message ?? text);
}
