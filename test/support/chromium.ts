import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { inflateSync } from 'node:zlib';

/** The first Chromium on the PATH; undefined: there is none. */
export function findChromium(): string | undefined {
  const folders = (process.env.PATH ?? '').split(delimiter);
  return ['chromium', 'chromium-browser', 'google-chrome']
    .flatMap((name) => folders.map((folder) => resolve(folder, name)))
    .find((file) => existsSync(file));
}

interface Look {
  readonly program: string;
  /** A folder that is the browser's own. */
  readonly folder: string;
  readonly width: number;
  readonly height: number;
}

/** What a page looks like, and what its document is then. */
export function lookAt(file: string, hash: string, { program, folder, width, height }: Look) {
  const url = `${pathToFileURL(file)}#${hash}`;
  const picture = join(folder, `${hash}.png`);
  const run = (what: string) => {
    const flags = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run'];
    const own = [
      `--user-data-dir=${join(folder, 'chromium')}`,
      `--window-size=${width},${height}`,
      '--hide-scrollbars',
    ];
    const args = [...flags, ...own, '--virtual-time-budget=5000', what, url];
    const { status, stdout, stderr } = spawnSync(program, args, {
      encoding: 'utf8',
      timeout: 60_000,
      maxBuffer: 1 << 28,
    });
    if (status !== 0) throw new Error(`${program} failed: ${stderr.slice(-2000)}`);
    return stdout;
  };
  run(`--screenshot=${picture}`);
  return { pixels: readPng(readFileSync(picture)), document: run('--dump-dom') };
}

interface Pixels {
  readonly width: number;
  readonly height: number;
  /** Red, green and blue of a pixel, as 0xrrggbb. */
  at(x: number, y: number): number;
}

/** A PNG of 8 bits a channel, as Chromium writes it. */
function readPng(bytes: Buffer): Pixels {
  const [width, height] = [bytes.readUInt32BE(16), bytes.readUInt32BE(20)];
  const channels = bytes[25] === 6 ? 4 : 3;
  const parts: Buffer[] = [];
  for (let at = 8; at < bytes.length; at += 12 + bytes.readUInt32BE(at)) {
    if (bytes.toString('latin1', at + 4, at + 8) === 'IDAT')
      parts.push(bytes.subarray(at + 8, at + 8 + bytes.readUInt32BE(at)));
  }
  const raw = inflateSync(Buffer.concat(parts));
  const stride = width * channels;
  const rows = Buffer.alloc(stride * height);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (stride + 1)]!;
    for (let i = 0; i < stride; i++) {
      const left = i < channels ? 0 : rows[y * stride + i - channels]!;
      const up = y === 0 ? 0 : rows[(y - 1) * stride + i]!;
      const corner = i < channels || y === 0 ? 0 : rows[(y - 1) * stride + i - channels]!;
      const guess = [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter]!;
      rows[y * stride + i] = raw[y * (stride + 1) + 1 + i]! + guess;
    }
  }
  return { width, height, at: (x, y) => rows.readUIntBE(y * stride + x * channels, 3) };
}

function paeth(left: number, up: number, corner: number): number {
  const [a, b, c] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
  if (a <= b && a <= c) return left;
  return b <= c ? up : corner;
}
