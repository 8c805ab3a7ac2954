import { readWhole } from '../../../files/io.js';
import { JsonReader, type JsonSource, parseJson } from '../../../files/json.js';
import { HqqError } from '../../../messages/errors.js';
import { plain } from '../../../messages/text.js';
import type { TensorSource } from '../../container.js';

/** Largest file of a tokenizer. Real ones have up to 35 MB. */
const MAX_BYTES = 256 * 1024 * 1024;

type Json = Readonly<Record<string, unknown>>;

/** The files of a folder that say how text becomes tokens. */
export interface TokenizerFiles {
  /** Path of tokenizer.json, for messages. */
  readonly path: string;
  readonly tokenizer: Json;
  readonly settings: Json;
  /** config.json. */
  readonly config: Json;
  readonly chatTemplate: string | undefined;
}

/** Reads them. @throws {HqqError} `ERR_CHECKPOINT_CONTENT` where there is no tokenizer.json, `ERR_CHECKPOINT_FORMAT`, `ERR_IO` */
export async function readTokenizer({ path, envelope }: TensorSource): Promise<TokenizerFiles> {
  const paths = new Map<string, string>();
  for (const companion of envelope.companions(new Map())) {
    if ('copyOf' in companion) paths.set(companion.name, companion.copyOf);
  }
  const file = paths.get('tokenizer.json');
  if (file === undefined) {
    const message = `${plain(path)} has no tokenizer.json, which a GGUF file holds`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. Copy it from where the model comes from.`);
  }
  const object = async (name: string, parse = parseJson): Promise<Json | undefined> => {
    const from = paths.get(name);
    if (from === undefined) return undefined;
    const value = parse(await readWhole(from, MAX_BYTES), { file: from, allowNonFinite: true });
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Json;
    throw new HqqError('ERR_CHECKPOINT_FORMAT', `${plain(from)}: Expected a JSON object.`);
  };
  const settings = (await object('tokenizer_config.json')) ?? {};
  const template = paths.get('chat_template.jinja');
  return {
    ...{
      path: file,
      tokenizer: (await object('tokenizer.json', parseTokenizer))!,
      settings,
      config: envelope.config ?? {},
    },
    chatTemplate: template ? (await readWhole(template, MAX_BYTES)).toString('utf8') : templateOf(settings),
  };
}

/**
 * tokenizer.json as a tree, where merges that are pairs become texts as they are read: hundreds of thousands of arrays would take many
 * times the memory.
 */
function parseTokenizer(bytes: Uint8Array, source: JsonSource): unknown {
  const reader = new JsonReader(bytes, source);
  const merge = () => {
    const pair = reader.value();
    const joins =
      Array.isArray(pair) && pair.length === 2 && pair.every((one) => typeof one === 'string' && !/ /.test(one));
    return joins ? pair.join(' ') : pair;
  };
  const merges = () => {
    const all: unknown[] = [];
    reader.elements(() => all.push(merge()));
    return all;
  };
  const model = (key: string) => (key === 'merges' && reader.kind() === 'array' ? merges() : reader.value());
  const member = (key: string) =>
    key === 'model' && reader.kind() === 'object' ? reader.object(model) : reader.value();
  const value = reader.kind() === 'object' ? reader.object(member) : reader.value();
  reader.end();
  return value;
}

function templateOf({ chat_template: given }: Json): string | undefined {
  if (typeof given === 'string') return given;
  if (!Array.isArray(given)) return undefined;
  const named = given.find((one) => (one as { name?: unknown } | null)?.name === 'default') as { template?: unknown };
  return typeof named?.template === 'string' ? named.template : undefined;
}
