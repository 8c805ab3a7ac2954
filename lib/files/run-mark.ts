import { createHash } from 'node:crypto';
import { readFileSync, readlinkSync, statfsSync } from 'node:fs';
import { hostname } from 'node:os';
import { isMainThread, threadId } from 'node:worker_threads';
import { systemCode } from './io.js';

/**
 * Who writes an output. It is a part of the name that the output has meanwhile, so that a later run can tell whether the writer may
 * still be alive. A process id alone does not say: containers on one volume count their own from 1, and ids are given again.
 */
export interface RunMark {
  readonly pid: number;
  /**
   * The system's id of the thread, which is the process's for the main one: worker threads share the process and end before it. Where
   * there is no /proc, Node's number of it, and `start` is not known.
   */
  readonly thread: number;
  /**
   * An installation of a system that has no other processes than those it sees: its machine id and name, outside of containers.
   * Of two boots of it at most one is alive, but machines that were cloned from one image may share both. `0` where that is not known.
   */
  readonly machine: string;
  /** The boot of the kernel, which all its containers share. `0` where that is not known. */
  readonly boot: string;
  /** Within what the process id counts: a boot of a kernel, a namespace of processes. `0` where that is not known. */
  readonly space: string;
  /** When the thread began, in ticks after the boot. `0` where that is not known. */
  readonly start: string;
}

/** The namespaces that Linux itself starts with: no container is in both. */
const FIRST_PIDS = 'pid:[4026531836]';
const FIRST_TIMES = ['', 'time:[4026531834]'];

const PATTERN = /^(\d{1,10})\.(\d{1,10})\.([0-9a-f]{1,8})\.([0-9a-f]{1,8})\.([0-9a-f]{1,8})\.(\d{1,20})$/;

/** What `text` says, if it is a mark. */
export function parseMark(text: string): RunMark | undefined {
  const [, pid, thread, machine, boot, space, start] = PATTERN.exec(text) ?? [];
  if (start === undefined) return undefined;
  return { pid: Number(pid), thread: Number(thread), machine: machine!, boot: boot!, space: space!, start };
}

/** As it stands in a name. */
export function formatMark({ pid, thread, machine, boot, space, start }: RunMark): string {
  return [pid, thread, machine, boot, space, start].join('.');
}

/** This run: of this thread. */
export const OWN_RUN: RunMark = identify();
/** The same, as it stands in names. */
export const RUN_MARK = formatMark(OWN_RUN);

function identify(): RunMark {
  const own = { pid: process.pid, thread: threadId, machine: '0', boot: '0', space: '0', start: '0' };
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
  const thread = isMainThread ? process.pid : ownThread();
  const start = thread === undefined ? undefined : taskAt(process.pid, thread)?.start;
  return {
    ...own,
    boot: digest(boot),
    space: digest(boot, pids, times),
    machine: isWhole ? digest(id, hostname()) : '0',
    ...(thread === undefined || start === undefined ? {} : { thread, start }),
  };
}

/** The system's id of the thread that asks; undefined where /proc does not tell. */
function ownThread(): number | undefined {
  const [pid, id] = attempt(() => readlinkSync('/proc/thread-self')).split('/task/');
  return pid === `${process.pid}` && id !== undefined ? Number(id) : undefined;
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

/** What /proc says of a thread; undefined where it is not there, hides it, or counts as another namespace does. */
function taskAt(pid: number, thread: number): { readonly isZombie: boolean; readonly start: string } | undefined {
  if (attempt(() => readlinkSync('/proc/self')) !== `${process.pid}`) return undefined;
  const text = attempt(() => readFileSync(`/proc/${pid}/task/${thread}/stat`, 'latin1'));
  // "pid (name) state ...": the name may hold anything, also spaces and parentheses.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [state, start] = [fields[0], fields[19]];
  return state === undefined || start === undefined ? undefined : { isZombie: /[ZX]/.test(state), start };
}

/** What can be told of another run. */
export type Life = 'yes' | 'no' | 'unlikely' | 'unknown';

/**
 * Whether another run is alive: `yes`; `no`; `unlikely` where it seems to have been here and to have ended, but what says so may be
 * true of another machine, too; `unknown` where it counts its processes elsewhere, in another container or on another machine. Never
 * `no` for one that may be.
 *
 * @param onOwnDisk whether what it writes lies on a disk of this kernel (`isOwnDisk`)
 */
export function isAlive(run: RunMark, onOwnDisk = false): Life {
  if (run.space === '0' || run.space !== OWN_RUN.space) {
    if (run.space === '0' || OWN_RUN.space === '0') return 'unknown';
    // An earlier boot of this very machine, or a clone of it that is up: machine id and name are in the image.
    const isEarlier = run.machine !== '0' && run.machine === OWN_RUN.machine;
    // Who wrote to a disk of this kernel before it was booted has ended, also in a container. But it may be served to others.
    const isBefore = onOwnDisk && run.boot !== '0' && OWN_RUN.boot !== '0' && run.boot !== OWN_RUN.boot;
    return isEarlier || isBefore ? 'unlikely' : 'unknown';
  }
  if (run.pid === OWN_RUN.pid && run.thread === OWN_RUN.thread && run.start === OWN_RUN.start) return 'yes';
  // Without a start there was no /proc, and the space may be no more than the name of the machine.
  const ended = run.start === '0' ? 'unlikely' : 'no';
  if (!exists(run.pid)) return ended;
  const process = taskAt(run.pid, run.pid);
  if (process === undefined) return 'yes';
  if (process.isZombie) return ended;
  if (run.start === '0') return 'yes';
  const thread = taskAt(run.pid, run.thread); // none: a worker thread that was terminated
  return thread === undefined || thread.isZombie || thread.start !== run.start ? 'no' : 'yes';
}

/** Types of file systems that one kernel has for itself, as Linux numbers them: ext4, XFS, Btrfs, F2FS, ZFS, bcachefs, overlay, tmpfs. */
const OWN_DISKS = [0xef53, 0x58465342, 0x9123683e, 0xf2f52010, 0x2fc12fc1, 0xca451a4e, 0x794c7630, 0x01021994];

/** Whether a folder lies on a disk of this kernel, and not on one that comes from elsewhere. `false` where that is not known. */
export function isOwnDisk(folder: string): boolean {
  if (process.platform !== 'linux') return false;
  try {
    return OWN_DISKS.includes(statfsSync(folder).type);
  } catch {
    return false;
  }
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
