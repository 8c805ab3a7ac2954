import { once } from 'node:events';
import { createServer } from 'node:net';
import { systemCode } from '../files/io.js';
import { HqqError } from '../messages/errors.js';
import { plain } from '../messages/text.js';

/** Where a server listens. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

const OTHER_PORT = '--port names another.';
const OTHER_HOST = '--host names an address of this machine: 127.0.0.1, or 0.0.0.0 for all.';
const NO_HOST = `Nothing is known by this name. ${OTHER_HOST}`;

/** What to do about a system error, by its code. */
const ADVICE: Readonly<Record<string, string>> = {
  EADDRINUSE: `It is in use. ${OTHER_PORT}`,
  EACCES: `Permission is denied, as for ports below 1024 in many systems. ${OTHER_PORT}`,
  EADDRNOTAVAIL: `This machine does not have the address. ${OTHER_HOST}`,
  ENOTFOUND: NO_HOST,
  EAI_AGAIN: NO_HOST,
  ERR_ACCESS_DENIED: 'Node.js was started with --permission, and may not do this: --allow-net lets it.',
};

/** Runs `listen`. @throws {HqqError} `ERR_IO`, which names the address, for what the system says against it */
export async function listening<T>({ host, port }: Address, listen: () => Promise<T>): Promise<T> {
  try {
    return await listen();
  } catch (cause) {
    const code = systemCode(cause);
    if (code === undefined) throw cause;
    const message = `Cannot listen at port ${port} of ${plain(host)}. ${ADVICE[code] ?? `The system says: ${plain(code)}.`}`;
    throw new HqqError('ERR_IO', message, { cause });
  }
}

/** Listens for a moment, to know before a model is loaded whether it can be. @throws {HqqError} `ERR_IO` */
export function tryListening(address: Address): Promise<void> {
  return listening(address, async () => {
    const server = createServer();
    await once(server.listen(address.port, address.host), 'listening');
    await new Promise((resolve) => server.close(resolve));
  });
}
