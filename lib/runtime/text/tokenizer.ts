import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { readWhole, systemCode } from '../../files/io.js';
import { type FilePath, pathOf } from '../../files/path.js';
import { HqqError, show } from '../../messages/errors.js';
import { refuseSurplus } from '../../messages/surplus.js';
import { formatError, plain, quote } from '../../messages/text.js';
import { openFolderModel } from '../../models/folder-model.js';
import {
  type ChatMessage,
  type ChatOptions,
  type ChatTemplate,
  templateContext,
  templateFor,
} from './chat-template.js';
import { findJinja, findTokenizers } from './library.js';
import { TemplateThreads } from './template-threads.js';
import { type TokenizerFiles, WorkerTokenizer } from './tokenizer-worker.js';

/** Largest tokenizer.json. Real ones have up to 35 MB. */
const MAX_TOKENIZER_BYTES = 256 * 1024 * 1024;

/** Characters of a text that others do not wait for: it may take seconds, where it is one long word. */
const LONG = 16_384;

/** A model's own tokenizer, which turns conversations into ids, too. @internal */
export interface ChatTokenizer extends TextTokenizer {
  /** The texts of tokens 0 to `count - 1`, each by itself; of special ones, and where there is none, ''. */
  texts(count: number): Promise<readonly string[]>;
  /** Each token by itself, special ones by their names. */
  spell(ids: readonly number[]): Promise<readonly string[]>;
  /** As `encode`; long texts on another thread, one after the other, so that nobody else waits for them. */
  encodeApart(text: string): Promise<number[]>;
  /**
   * A template's text has the special tokens already. Long ones are read as `encodeApart` does.
   *
   * @param most Characters that it may have.
   */
  encodeChat(
    template: ChatTemplate,
    messages: readonly ChatMessage[],
    options: ChatOptions,
    signal: AbortSignal | undefined,
    most?: number,
  ): Promise<number[]>;
}

/** Text to token ids and back, on a thread of its own: neither making one nor a long text holds the event loop up. */
export interface TextTokenizer {
  /** With what the tokenizer puts around a text, such as a token for its beginning. */
  encode(text: string): Promise<number[]>;
  /** Without special tokens. A character whose last bytes are still to come is shown as U+FFFD. */
  decode(ids: readonly number[]): Promise<string>;
  /** Ends the thread, which otherwise ends with the process, or some time after the tokenizer is used no more. */
  close(): Promise<void>;
}

const NO_THREADS =
  'Text needs a thread for the tokenizer, and Node.js was started with --permission. Add --allow-worker.';

/** What a tokenizer runs on. */
interface Threads {
  readonly worker: WorkerTokenizer;
  /** For long texts, once there was one. */
  apart: Promise<WorkerTokenizer> | undefined;
  /** Once there was a conversation. */
  templates: TemplateThreads | undefined;
}

/** Ends the threads of tokenizers that nobody closed. */
const FORGOTTEN = new FinalizationRegistry<WorkerTokenizer | TemplateThreads>((thread) => {
  if (thread instanceof WorkerTokenizer) thread.closeWhenIdle();
  else void thread.close();
});

/**
 * The tokenizer of a model folder (`tokenizer.json` and, if there, `tokenizer_config.json`), read by `@huggingface/tokenizers`: the
 * one that is installed where this package is, else that of the working directory.
 *
 * @throws {HqqError} `ERR_DEPENDENCY` when the package is not installed or may not have a thread, `ERR_IO`, `ERR_CHECKPOINT_FORMAT`,
 *   `ERR_CHECKPOINT_CONTENT` for a tokenizer in another form (`tokenizer.model`)
 */
export async function openTokenizer(path: FilePath): Promise<TextTokenizer> {
  refuseSurplus(arguments.length, 1, 'openTokenizer(path)');
  const { encode, decode, close } = await openChatTokenizer(path);
  return { encode, decode, close };
}

/** `openTokenizer`, for a model that chats. */
export async function openChatTokenizer(path: FilePath): Promise<ChatTokenizer> {
  const folder = pathOf(path, 'the tokenizer', 'a model folder');
  const worker = await openWorker(folder);
  let texts: Promise<readonly string[]> | undefined;
  const held: Threads = { worker, apart: undefined, templates: undefined }; // by each of the methods: `const { encode } = await openTokenizer(...)` keeps the thread, too
  FORGOTTEN.register(held, worker);
  let closed = false;
  const workerFor = ({ length }: string): Promise<WorkerTokenizer> | WorkerTokenizer => {
    if (length <= LONG || closed) return held.worker;
    held.apart ??= openWorker(folder).then(
      (apart) => {
        FORGOTTEN.register(held, apart);
        return apart;
      },
      (error: unknown) => {
        held.apart = undefined;
        throw error;
      },
    );
    return held.apart;
  };
  return {
    encode: async (text) => {
      if (typeof text !== 'string') throw new HqqError('ERR_INVALID_ARGUMENT', `Expected a text, got ${show(text)}.`);
      return held.worker.encode(text);
    },
    decode: async (ids) => {
      const isId = (id: unknown) => Number.isSafeInteger(id) && (id as number) >= 0 && (id as number) < 2 ** 31;
      if (Array.isArray(ids) && ids.every(isId)) return held.worker.decode(ids);
      throw new HqqError('ERR_INVALID_ARGUMENT', `Expected ids to be a list of token ids, got ${show(ids)}.`);
    },
    encodeApart: async (text) => (await workerFor(text)).encode(text),
    spell: (ids) => held.worker.spell(ids),
    encodeChat: async (template, messages, options, signal, most = Infinity) => {
      const context = templateContext(template, messages, options);
      const rendering = { template: templateFor(template, options), context: plainCopy(context) };
      if (closed) throw new HqqError('ERR_CLOSED', 'Expected the tokenizer to be open, got a call after close.');
      if (!held.templates) {
        held.templates = new TemplateThreads(findTemplates());
        FORGOTTEN.register(held, held.templates);
      }
      const text = await held.templates.render(rendering, signal).catch((cause: unknown) => {
        if (cause instanceof HqqError || signal?.aborted) throw cause;
        const message = `The model's chat template refuses the messages: ${plain(String((cause as Error)?.message ?? cause))}`;
        throw new HqqError('ERR_INVALID_ARGUMENT', message, { cause });
      });
      if (text.length > most) {
        const message = `Expected the model's chat template to make at most ${most} characters of the messages, got ${text.length}.`;
        throw new HqqError('ERR_INVALID_ARGUMENT', message);
      }
      return (await workerFor(text)).encodePlain(text);
    },
    texts: (count) => {
      // Kept: it takes a decoding of each token.
      texts ??= held.worker.texts(count).catch((error: unknown) => {
        texts = undefined;
        throw error;
      });
      return texts;
    },
    close: async () => {
      closed = true;
      const apart = held.apart?.then((worker) => worker.close()).catch(() => {}); // what never opened
      await Promise.all([held.worker.close(), apart, held.templates?.close()]);
    },
  };
}

/** A thread for the tokenizer of a folder, or of a file. */
async function openWorker(folder: string): Promise<WorkerTokenizer> {
  const library = findLibrary();
  const { tokenizer, config } = (await isFile(folder)) ? await madeFiles(folder) : await readFiles(folder);
  const worker = await WorkerTokenizer.open(library, { tokenizer, config }).catch((cause: unknown) => {
    if (systemCode(cause) === 'ERR_ACCESS_DENIED') throw new HqqError('ERR_DEPENDENCY', NO_THREADS, { cause });
    throw new HqqError('ERR_DEPENDENCY', `The tokenizer package at ${plain(library)} does not run here.`, { cause });
  });
  if (!(worker instanceof WorkerTokenizer)) throw formatError(join(folder, worker.file), `${plain(worker.message)}.`);
  return worker;
}

/** What lies in a folder. */
async function readFiles(folder: string): Promise<TokenizerFiles> {
  const tokenizer = await readWhole(join(folder, 'tokenizer.json'), MAX_TOKENIZER_BYTES).catch(
    async (error: unknown) => {
      throw (isMissing(error) && (await withoutTokenizer(folder, error))) || error;
    },
  );
  const config = await readWhole(join(folder, 'tokenizer_config.json'), MAX_TOKENIZER_BYTES).catch((error: unknown) => {
    if (isMissing(error)) return undefined;
    throw error;
  });
  return { tokenizer, config };
}

const isFile = (path: string) =>
  stat(path).then(
    (found) => found.isFile(),
    () => false, // which reading says better
  );

/** What a model in one file, of GGUF, says of its tokenizer. */
async function madeFiles(path: string): Promise<TokenizerFiles> {
  const model = await openFolderModel(path);
  try {
    const [tokenizer, config] = ['tokenizer.json', 'tokenizer_config.json'].map((name) => model.madeText(name));
    if (tokenizer !== undefined)
      return { tokenizer: Buffer.from(tokenizer), config: config === undefined ? config : Buffer.from(config) };
    const message = `Expected a model folder with tokenizer.json, or a GGUF file, got ${plain(path)}`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}, a file that says nothing of a tokenizer.`);
  } finally {
    await model.close();
  }
}

const isMissing = (error: unknown) => error instanceof HqqError && systemCode(error.cause) === 'ENOENT';

/** Files of the forms that a tokenizer has elsewhere, of which transformers makes a tokenizer.json. */
const OTHER_FORMS = [
  'tokenizer.model',
  'spiece.model',
  'sentencepiece.bpe.model',
  'tekken.json',
  'vocab.json',
  'vocab.txt',
];

/** The error for a folder without tokenizer.json; undefined where there is no folder. */
async function withoutTokenizer(folder: string, cause: unknown): Promise<HqqError | undefined> {
  const listed = await readdir(folder).catch(() => undefined);
  if (listed === undefined) return undefined;
  const names = new Set(listed);
  const form = OTHER_FORMS.find((name) => names.has(name));
  if (form === undefined) {
    const message = `${plain(folder)} has no tokenizer.json, which text needs. Copy it (and tokenizer_config.json, if there)`;
    return new HqqError('ERR_IO', `${message} from where the model comes from: its page on Hugging Face has it.`, {
      cause,
    });
  }
  const call = `from transformers import AutoTokenizer; AutoTokenizer.from_pretrained(${quote(folder)}).save_pretrained(${quote(folder)})`;
  return new HqqError(
    'ERR_CHECKPOINT_CONTENT',
    `${plain(folder)} has its tokenizer as ${form}, without the tokenizer.json that is read here. Make one, in Python (pip install ` +
      `transformers sentencepiece protobuf): ${call}`,
  );
}

/** What goes to another thread: messages are JSON. */
function plainCopy<T>(value: T): T {
  try {
    return JSON.parse(JSON.stringify(value)) as T;
  } catch (cause) {
    throw new HqqError('ERR_INVALID_ARGUMENT', 'Expected messages, tools and templateOptions to be JSON.', { cause });
  }
}

function findTemplates(): string {
  try {
    return findJinja(process.cwd());
  } catch (cause) {
    const message =
      'Chat needs the package @huggingface/jinja, which is found neither beside hqq nor from the working directory';
    throw new HqqError('ERR_DEPENDENCY', `${message}. Install it: npm install @huggingface/jinja`, { cause });
  }
}

function findLibrary(): string {
  try {
    return findTokenizers(process.cwd()); // hqq may be installed for all, its tokenizer for a project
  } catch (error) {
    const message =
      'Text needs the package @huggingface/tokenizers, which is found neither beside hqq nor from the working directory';
    throw new HqqError('ERR_DEPENDENCY', `${message}. Install it: npm install @huggingface/tokenizers`, {
      cause: error,
    });
  }
}
