import * as fs from 'node:fs';
import { dirname, join } from 'node:path';
import { safetensors } from '../../lib/containers/safetensors/container.js';
import { StagedOutput } from '../../lib/files/staged-output.js';

export const none = { made: safetensors, inputs: [] };
export const force = { ...none, force: true };
/** What is in the folder of `target`. */
export const beside = (target: string) => fs.readdirSync(dirname(target)).sort();

/** The content of a folder or file, for comparison. */
export function content(path: string): unknown {
  if (!fs.statSync(path).isDirectory()) return fs.readFileSync(path, 'utf8');
  return Object.fromEntries(
    fs
      .readdirSync(path)
      .sort()
      .map((name) => [name, content(join(path, name))]),
  );
}

export async function stageFile(
  target: string,
  text: string,
  options: Parameters<typeof StagedOutput.begin>[2] = none,
): Promise<StagedOutput> {
  const staged = await StagedOutput.begin(target, 'file', options);
  fs.writeFileSync(staged.path, text);
  return staged;
}

export async function stageFolder(
  target: string,
  text: string,
  options: Parameters<typeof StagedOutput.begin>[2] = none,
): Promise<StagedOutput> {
  const staged = await StagedOutput.begin(target, 'folder', options);
  await staged.writeFile('config.json', text);
  return staged;
}
