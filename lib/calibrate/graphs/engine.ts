import { createRequire } from 'node:module';
import path from 'node:path';
import { HqqError } from '../../messages/errors.js';

// What of onnxruntime-node is used, in its own words. It is no dependency: who has graphs to run installs it.

/** A tensor of onnxruntime. */
export interface OrtTensor {
  /** `float32`, `int64`, and so on. */
  readonly type: string;
  readonly dims: readonly number[];
  readonly data: unknown;
}

export interface OrtSession {
  run(
    feeds: Readonly<Record<string, OrtTensor>>,
    fetches: readonly string[],
  ): Promise<Readonly<Record<string, OrtTensor>>>;
  release(): Promise<void>;
}

export interface Ort {
  readonly InferenceSession: {
    create(model: Uint8Array, options: Readonly<Record<string, unknown>>): Promise<OrtSession>;
  };
  readonly Tensor: new (type: string, data: unknown, dims: readonly number[]) => OrtTensor;
}

const NAME = 'onnxruntime-node';

/** What says that it is missing, and how it comes. */
export const MISSING = `that of an ONNX model needs the package ${NAME} (npm install ${NAME}), which is found neither beside hqq nor from the working directory`;

/** Whether onnxruntime-node is installed where this package is, or in the working directory. */
export function hasOnnxRuntime(): boolean {
  return find() !== undefined;
}

/**
 * That package.
 *
 * @param without How its caller does without, as a user says it; undefined: not at all.
 * @throws {HqqError} `ERR_DEPENDENCY`
 */
export function loadOnnxRuntime(without: string | undefined): Ort {
  const found = find();
  if (found === undefined) {
    const otherwise = without === undefined ? '' : ` Or do without (${without}).`;
    throw new HqqError('ERR_DEPENDENCY', `Cannot find importance: ${MISSING}.${otherwise}`);
  }
  try {
    return required()(found) as Ort;
  } catch (cause) {
    const message = `Cannot load ${NAME}: ${cause instanceof Error ? cause.message : String(cause)}`;
    const otherwise = without === undefined ? '' : `, or do without importance (${without})`;
    throw new HqqError('ERR_DEPENDENCY', `${message}. Install it anew${otherwise}.`, { cause });
  }
}

const required = () => createRequire(import.meta.url || path.join(process.cwd(), 'package.json'));

function find(): string | undefined {
  const req = required();
  for (const options of [undefined, { paths: [process.cwd()] }]) {
    try {
      return req.resolve(NAME, options);
    } catch {
      // Perhaps from the other place.
    }
  }
  return undefined;
}
