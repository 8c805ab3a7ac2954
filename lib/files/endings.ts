import { basename, extname } from 'node:path';
import { plain } from '../messages/text.js';
import type { FileKind } from './file-kind.js';
import type { OutputKind } from './output-rules.js';

/** Endings that say what a file is, of models and of what is often beside them. ".2" of "llama-3.2" says nothing. */
const ENDING =
  /^\.(safetensors|gguf|ggml|onnx|bin|pt|pth|ckpt|h5|hdf5|msgpack|npy|npz|pkl|tflite|json|txt|zip|tar|gz)$/i;

/** What an output of files of kind `made` is called that it is not: remarks for people, none as a rule. */
export function endingNotes(output: string, kind: OutputKind, made: FileKind): readonly string[] {
  const name = basename(output);
  const ending = extname(name);
  if (!ENDING.test(ending)) return [];
  if (kind === 'folder') return [`${plain(name)} is a folder, as the input is one, whatever its name says.`];
  if (ending.toLowerCase() === made.ending) return [];
  const better = `${name.slice(0, -ending.length)}${made.ending}`;
  return [
    `${plain(name)} is ${made.title}, whatever its name says: call it ${plain(better)}, or programs take it for another.`,
  ];
}
