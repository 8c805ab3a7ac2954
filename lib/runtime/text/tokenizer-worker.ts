import type { Worker } from 'node:worker_threads';
import { workerThreads } from '../../backend/worker-threads.js';
import { HqqError } from '../../messages/errors.js';

/** A file of a tokenizer, as its bytes. */
export interface TokenizerFiles {
  readonly tokenizer: Uint8Array;
  readonly config: Uint8Array | undefined;
}

/** Why a tokenizer cannot be made, and which file is to blame. */
interface Refusal {
  readonly file: 'tokenizer.json' | 'tokenizer_config.json';
  readonly message: string;
}

/**
 * What the worker runs: as text, since a file of its own would be missing where the package is bundled. It makes the tokenizer and
 * then answers lists of requests with lists of results.
 */
const PROGRAM = `
const { parentPort, workerData } = require('node:worker_threads');
const read = (file, bytes) => {
  let value;
  try {
    value = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8'));
  } catch (error) {
    throw { file, message: 'not valid JSON: ' + error.message + '. The file is damaged; fetch it again' };
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw { file, message: 'expected a JSON object' };
  return value;
};
const make = () => {
  const { Tokenizer } = require(workerData.library);
  const file = 'tokenizer.json';
  const json = read(file, workerData.tokenizer);
  const config = workerData.config ? read('tokenizer_config.json', workerData.config) : {};
  try {
    return new Tokenizer(json, config);
  } catch (error) {
    throw { file, message: 'the tokenizer cannot be made: ' + error };
  }
};
const CALLS = {
  encode: (tokenizer, text) => Int32Array.from(tokenizer.encode(text).ids),
  encodePlain: (tokenizer, text) => Int32Array.from(tokenizer.encode(text, { add_special_tokens: false }).ids),
  texts: (tokenizer, count) =>
    Array.from({ length: count }, (_, id) => {
      try {
        return tokenizer.decode([id], { skip_special_tokens: true, clean_up_tokenization_spaces: false });
      } catch {
        return ''; // an id that the tokenizer does not know
      }
    }),
  spell: (tokenizer, ids) =>
    [...ids].map((id) => {
      const spell = (skip_special_tokens) => tokenizer.decode([id], { skip_special_tokens, clean_up_tokenization_spaces: false });
      return spell(true) || spell(false);
    }),
  decode: (tokenizer, ids) =>
    ids.length === 0
      ? ''
      : tokenizer.decode([...ids], { skip_special_tokens: true, clean_up_tokenization_spaces: false }),
};
const serve = (tokenizer) => {
  parentPort.on('message', (requests) => {
    parentPort.postMessage(requests.map(([call, argument]) => {
      try {
        return { value: CALLS[call](tokenizer, argument) };
      } catch (error) {
        return { error };
      }
    }));
  });
};
try {
  serve(make());
  parentPort.postMessage([{ value: undefined }]);
} catch (refusal) {
  parentPort.postMessage([refusal.file ? { value: refusal } : { error: refusal }]);
}
`;

interface Pending {
  readonly resolve: (value: never) => void;
  readonly reject: (error: unknown) => void;
}

type Request =
  | readonly ['encode' | 'encodePlain', string]
  | readonly ['decode' | 'spell', Int32Array]
  | readonly ['texts', number];
type Answer = { readonly value: unknown } | { readonly error: unknown };

/**
 * A tokenizer of `@huggingface/tokenizers` on a thread of its own: making one of a real vocabulary takes hundreds of milliseconds in
 * one go, and so may a long text. The thread keeps no process alive that waits for nothing of it.
 */
export class WorkerTokenizer {
  readonly #worker: Worker;
  /** Requests of this turn of the event loop: they travel together. */
  #batch: Request[] = [];
  /** In the order of the requests. */
  readonly #pending: Pending[] = [];
  #failure: unknown;
  #closing = false;

  private constructor(worker: Worker) {
    this.#worker = worker;
  }

  /**
   * @param library Where the package is.
   * @returns why not, where the files make no tokenizer.
   */
  static async open(library: string, files: TokenizerFiles): Promise<WorkerTokenizer | Refusal> {
    const { Worker } = workerThreads();
    const transferList = Object.values(files).flatMap((bytes?: Uint8Array) =>
      bytes && bytes.byteLength === bytes.buffer.byteLength ? [bytes.buffer as ArrayBuffer] : [],
    );
    const worker = new Worker(PROGRAM, {
      ...{ eval: true, name: 'hqq tokenizer', execArgv: [], workerData: { library, ...files }, transferList },
    });
    const tokenizer = new WorkerTokenizer(worker);
    worker.on('message', (answers: readonly Answer[]) => tokenizer.#settle(answers));
    worker.on('error', (error) => tokenizer.#fail(error));
    worker.on('exit', () => tokenizer.#fail(new Error('The thread of the tokenizer has ended.')));
    let refusal: Refusal | undefined;
    try {
      refusal = await tokenizer.#expect<Refusal | undefined>();
      if (!refusal) return tokenizer;
    } catch (error) {
      await tokenizer.close();
      throw error;
    }
    await tokenizer.close();
    return refusal;
  }

  async encode(text: string): Promise<number[]> {
    return Array.from(await this.#ask<Int32Array>(['encode', text]));
  }

  /** Without what the tokenizer puts around a text. */
  async encodePlain(text: string): Promise<number[]> {
    return Array.from(await this.#ask<Int32Array>(['encodePlain', text]));
  }

  /** Of each token by itself. */
  texts(count: number): Promise<readonly string[]> {
    return this.#ask(['texts', count]);
  }

  /** Each token by itself, special ones by their names. */
  spell(ids: readonly number[]): Promise<readonly string[]> {
    return this.#ask(['spell', Int32Array.from(ids)]);
  }

  decode(ids: readonly number[]): Promise<string> {
    return this.#ask(['decode', Int32Array.from(ids)]);
  }

  /** Ends the thread. Requests under way fail. */
  async close(): Promise<void> {
    this.#fail(new HqqError('ERR_CLOSED', 'Expected the tokenizer to be open, got a call after close.'));
    await this.#worker.terminate();
  }

  /** Ends the thread when the requests under way are answered. */
  closeWhenIdle(): void {
    this.#closing = true;
    if (this.#pending.length === 0) void this.close();
  }

  #ask<T>(request: Request): Promise<T> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#pending.length === 0) this.#worker.ref();
    // At the turn's end: by then the next step computes, which posting a message would hold up.
    if (this.#batch.push(request) === 1) setImmediate(() => this.#send());
    return this.#expect<T>();
  }

  /** The next answer that nobody waits for yet. */
  #expect<T>(): Promise<T> {
    return new Promise<T>((resolve, reject) => this.#pending.push({ resolve, reject }));
  }

  #send(): void {
    this.#worker.postMessage(this.#batch);
    this.#batch = [];
  }

  #settle(answers: readonly Answer[]): void {
    const settled = this.#pending.splice(0, answers.length);
    if (this.#pending.length === 0) this.#worker.unref();
    if (this.#closing) this.closeWhenIdle();
    answers.forEach((answer, i) => {
      if ('error' in answer) settled[i]!.reject(answer.error);
      else settled[i]!.resolve(answer.value as never);
    });
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    for (const { reject } of this.#pending.splice(0)) reject(this.#failure);
  }
}
