import { createRequire } from 'node:module';
import path from 'node:path';
import type fastify from 'fastify';
import { HqqError } from '../messages/errors.js';

/** Fastify: the one that is installed where this package is, else that of the working directory. @throws {HqqError} `ERR_DEPENDENCY` */
export function loadFastify(): typeof fastify {
  const other = process.cwd();
  const req = createRequire(import.meta.url || path.join(other, 'package.json'));
  try {
    return req(find(req, other)) as typeof fastify;
  } catch (cause) {
    const message =
      'Serving needs the package fastify, which is found neither beside hqq nor from the working directory';
    throw new HqqError('ERR_DEPENDENCY', `${message}. Install it: npm install fastify`, { cause });
  }
}

function find(req: NodeJS.Require, other: string): string {
  try {
    return req.resolve('fastify');
  } catch {
    return req.resolve('fastify', { paths: [other] });
  }
}
