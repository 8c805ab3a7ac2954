import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** Whether redis-server is to be had. Where it is not, tests that need it are skipped, and say so. */
export function hasRedis(): boolean {
  if (spawnSync('redis-server', ['--version']).status === 0) return true;
  if (process.env.HQQ_DEMAND_REDIS === '1') throw new Error('redis-server is not on the PATH (Debian: redis-server).');
  process.stderr.write(
    'Skipped: what needs redis-server, which is not on the PATH. HQQ_DEMAND_REDIS=1 fails without.\n',
  );
  return false;
}

/** A Redis of a test's own, on loopback, that keeps its data when it is started again. */
export class Redis {
  readonly #folder = mkdtempSync(join(tmpdir(), 'hqq-redis-'));
  readonly #password: string | undefined;
  #port = 0;
  #child: ChildProcess | undefined;

  /** @param password which whoever connects must have */
  constructor(password?: string) {
    this.#password = password;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.#port}`;
  }

  async start(): Promise<void> {
    this.#port ||= await freePort();
    const own = ['--port', `${this.#port}`, '--bind', '127.0.0.1', '--dir', this.#folder, '--logfile', 'redis.log'];
    const kept = ['--save', '', '--appendonly', 'yes', '--appendfsync', 'always'];
    const secret = this.#password === undefined ? [] : ['--requirepass', this.#password];
    this.#child = spawn('redis-server', [...own, ...kept, ...secret], { stdio: 'ignore' });
    for (let tries = 0; !(await answers(this.#port)); tries++) {
      if (tries === 600) throw new Error('redis-server does not answer.');
      await sleep(50);
    }
  }

  /** Ends it as a crash does. */
  async stop(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined || child.exitCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }

  /** Clears its data, when it is stopped. */
  forget(): void {
    rmSync(join(this.#folder, 'appendonlydir'), { recursive: true, force: true });
  }

  async remove(): Promise<void> {
    await this.stop();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write('PING\r\n'));
    // +PONG, or that a password is wanted; not that it is still loading.
    socket.on('data', (data) => {
      socket.destroy();
      resolve(/^(\+PONG|-NOAUTH)/.test(data.toString('latin1')));
    });
    socket.on('error', () => resolve(false));
  });
}
