// node examples/browser/serve.mjs [port]: serves this repository's built files and the page on them, to this machine only.
import { createReadStream, statSync } from 'node:fs';
import { createServer } from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const TYPES = {
  '.html': 'text/html',
  '.mjs': 'text/javascript',
  '.js': 'text/javascript',
  '.json': 'application/json',
};

/** A server of the files below `root`; `post`, if given, takes what pages send. */
export function serve(root, post) {
  return createServer((request, response) => {
    if (request.method === 'POST' && post) {
      let body = '';
      request.on('data', (text) => (body += text));
      request.on('end', () => {
        response.writeHead(204).end();
        post(body);
      });
      return;
    }
    // The URL's own parser takes `..` out, so nothing above the root can be named.
    const { pathname } = new URL(request.url, 'http://localhost');
    const file = path.join(root, decodeURIComponent(pathname));
    const type = TYPES[path.extname(file)];
    if (type === undefined || !file.startsWith(root) || !statSync(file, { throwIfNoEntry: false })?.isFile()) {
      response.writeHead(404).end('Not found\n');
      return;
    }
    response.writeHead(200, { 'content-type': `${type}; charset=utf-8`, 'cache-control': 'no-store' });
    createReadStream(file).pipe(response);
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const server = serve(root).listen(Number(process.argv[2] ?? 8000), '127.0.0.1', () => {
    console.log(`http://127.0.0.1:${server.address().port}/examples/browser/index.html`);
  });
}
