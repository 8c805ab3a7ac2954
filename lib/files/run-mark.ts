import { createHash } from 'node:crypto';
import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';
import { threadId } from 'node:worker_threads';
import { systemCode } from './io.js';

/**
 * Who writes an output. It is a part of the name that the output has meanwhile, so that a later run can tell whether the writer may
 * still be alive. A process id alone does not say: containers on one volume count their own from 1, and ids are given again.
 */
export interface RunMark {
  readonly pid: number;
  /** 0 for the main thread. Worker threads share the process id. */
  readonly thread: number;
  /**
   * An installation of a system that has no other processes than those it sees: its machine id and name, outside of containers.
   * Of two boots of it at most one is alive, but machines that were cloned from one image may share both. `0` where that is not known.
   */
  readonly machine: string;
  /** Within what the process id counts: a boot of a kernel, a namespace of processes. `0` where that is not known. */
  readonly space: string;
  /** When the process began, in ticks after the boot. `0` where that is not known. */
  readonly start: string;
}

/** The namespaces that Linux itself starts with: no container is in both. */
const FIRST_PIDS = 'pid:[4026531836]';
const FIRST_TIMES = ['', 'time:[4026531834]'];

const PATTERN = /^(\d{1,10})\.(\d{1,10})\.([0-9a-f]{1,8})\.([0-9a-f]{1,8})\.(\d{1,20})$/;

/** What `text` says, if it is a mark. */
export function parseMark(text: string): RunMark | undefined {
  const [, pid, thread, machine, space, start] = PATTERN.exec(text) ?? [];
  if (start === undefined) return undefined;
  return { pid: Number(pid), thread: Number(thread), machine: machine!, space: space!, start };
}

/** As it stands in a name. */
export function formatMark({ pid, thread, machine, space, start }: RunMark): string {
  return [pid, thread, machine, space, start].join('.');
}

/** This run: of this thread. */
export const OWN_RUN: RunMark = identify();
/** The same, as it stands in names. */
export const RUN_MARK = formatMark(OWN_RUN);

function identify(): RunMark {
  const own = { pid: process.pid, thread: threadId, machine: '0', space: '0', start: '0' };
  if (process.platform !== 'linux') {
    // No /proc to ask. Their containers have names of their own, and processes are told apart by their ids alone. Two machines of
    // one name look the same: isAlive is the more careful.
    return { ...own, space: digest(process.platform, hostname()) };
  }
  const boot = attempt(() => readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim());
  const pids = attempt(() => readlinkSync('/proc/self/ns/pid'));
  if (boot === '' || pids === '') return own;
  const times = attempt(() => readlinkSync('/proc/self/ns/time')); // ticks count from another moment in another of these
  const id = attempt(() => readFileSync('/etc/machine-id', 'latin1').trim());
  const isWhole = pids === FIRST_PIDS && FIRST_TIMES.includes(times) && id !== '';
  return {
    ...own,
    space: digest(boot, pids, times),
    machine: isWhole ? digest(id, hostname()) : '0',
    start: processAt(process.pid)?.start ?? '0',
  };
}

/** 32 bits, in hexadecimal digits. */
export function digest(...parts: readonly string[]): string {
  return createHash('sha256').update(parts.join('\0')).digest('hex').slice(0, 8);
}

function attempt(read: () => string): string {
  try {
    return read();
  } catch {
    return '';
  }
}

/** What /proc says of a process; undefined where it is not there, hides it, or counts as another namespace does. */
function processAt(pid: number): { readonly isZombie: boolean; readonly start: string } | undefined {
  if (attempt(() => readlinkSync('/proc/self')) !== `${process.pid}`) return undefined;
  const text = attempt(() => readFileSync(`/proc/${pid}/stat`, 'latin1'));
  // "pid (name) state ...": the name may hold anything, also spaces and parentheses.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [state, start] = [fields[0], fields[19]];
  return state === undefined || start === undefined ? undefined : { isZombie: /[ZX]/.test(state), start };
}

/**
 * Whether another run is alive: `yes`; `no`; `unlikely` where it seems to have been here and to have ended, but names alone say that
 * it was here, which another machine may share; `unknown` where it counts its processes elsewhere, in another container or on
 * another machine. Never `no` for one that may be.
 */
export function isAlive(run: RunMark): 'yes' | 'no' | 'unlikely' | 'unknown' {
  if (run.space === '0' || run.space !== OWN_RUN.space) {
    // An earlier boot of this very machine, or a clone of it that is up: machine id and name are in the image.
    const isEarlier = run.machine !== '0' && run.machine === OWN_RUN.machine && run.space !== '0';
    return isEarlier && OWN_RUN.space !== '0' ? 'unlikely' : 'unknown';
  }
  if (run.pid === OWN_RUN.pid && run.start === OWN_RUN.start) return 'yes'; // another thread of this process may use it
  // Without a start there was no /proc, and the space may be no more than the name of the machine.
  const ended = run.start === '0' ? 'unlikely' : 'no';
  if (!exists(run.pid)) return ended;
  const now = processAt(run.pid);
  if (now === undefined) return 'yes';
  if (now.isZombie) return ended;
  return run.start !== '0' && now.start !== run.start ? 'no' : 'yes';
}

/** Whether there is a process of this id. One of another user is. */
function exists(pid: number): boolean {
  if (pid === 0) return false; // would mean this process's group
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return systemCode(error) !== 'ESRCH';
  }
}
