import { withMember } from '../safetensors/config-text.js';
import type { ConfigFile } from '../safetensors/envelope.js';

// What transformers.js goes by: names of files, which say how a model is quantized, and a member of config.json.

export const CONFIG = 'config.json';

const MEMBER = 'transformers.js_config';

/** Ends of the names of models that are not float32, by what `dtype` calls them. */
const SUFFIXES: Readonly<Record<string, string>> = { q8: 'quantized', q4: 'q4', q2: 'q2' };

const ANY = /_(fp16|quantized|int8|uint8|q8|q4|q2|q1|q4f16|q2f16|q1f16|bnb4)\.onnx$/;

/** The name of a model's file without what says how it is quantized. */
export function withoutType(name: string): string {
  return name.replace(ANY, '.onnx');
}

/** What `dtype` calls weights of so many bits. */
export function typeOf(bits: number): string {
  return `q${bits}`;
}

/** Bits of the weights of a model's file, if `nameOf` calls one so. */
export function widthOf(name: string): number | undefined {
  const suffix = ANY.exec(name)?.[1];
  const type = Object.keys(SUFFIXES).find((key) => SUFFIXES[key] === suffix);
  return type === undefined ? undefined : Number(type.slice(1));
}

/** Where a model of such weights lies in the folder. */
export function nameOf(name: string, type: string): string {
  const stem = withoutType(name.slice(name.lastIndexOf('/') + 1)).slice(0, -'.onnx'.length);
  return `onnx/${stem}_${SUFFIXES[type] ?? type}.onnx`;
}

/**
 * config.json, with what transformers.js has to be told: which type to load where nobody says, and which models have their tensors
 * in a file beside them. What else stands there stays.
 *
 * @param written Names of the models that are written, and in how many files beside them their tensors lie: 0 where they do not.
 */
export function withTypes(
  { text, value: { [MEMBER]: config } }: ConfigFile,
  type: string,
  written: ReadonlyMap<string, number>,
): string {
  const isObject = (value: unknown): value is Record<string, unknown> =>
    typeof value === 'object' && value !== null && !Array.isArray(value);
  const old = isObject(config) ? config : {};
  const { use_external_data_format: data, ...rest } = old;
  const files: Record<string, unknown> = isObject(data) ? { ...data } : {};
  for (const [name, chunks] of written) {
    delete files[name];
    if (chunks > 0) files[name] = chunks;
    // What is said of all forms of a model holds where nothing is said of this one.
    else if (files[withoutType(name).slice(0, -'.onnx'.length)]) files[name] = false;
  }
  const said = Object.keys(files).length > 0 ? { use_external_data_format: files } : {};
  return withMember(text, MEMBER, { ...rest, dtype: type, ...said });
}
