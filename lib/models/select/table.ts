import { brotliDecompressSync } from 'node:zlib';
import { CLASSES, NODES, NODES_OF_PART, TYPES } from './architecture-data.js';

// The table of architectures as it was packed: nodes, classes and model types, a line each, cut into parts of which a model needs one
// or two: unpacking all takes longer than all else that selection does. A node is a list of `name=edge`: the kind of the matrix that is called so, in a letter, and then the
// number of the node below it, or `@text_config:LlamaModel`, a part that config.json chooses and the class of it by default. `*` is
// any number, and `-` a node of nothing. What is found there is ours, not a stranger's: nothing of it is checked.

/** What is below a name. */
export interface Edge {
  readonly kind: string;
  readonly node: number | undefined;
  /** Member of config.json that describes the part, and its class by default. */
  readonly part: readonly [member: string, className: string] | undefined;
}

/** What transformers calls the same matrix. */
export interface Tie {
  readonly target: string;
  /** What a file holds. */
  readonly source: string;
  /** Whatever the configuration says. */
  readonly always: boolean;
}

/** A class of models. */
export interface ClassRow {
  readonly name: string;
  readonly root: number;
  /** Which transformers have it: "4", "5", "45". */
  readonly versions: string;
  readonly type: string;
  /** Whether its head is tied where its configuration does not say. */
  readonly tied: boolean;
  /** Name of the part that is the bare model. */
  readonly prefix: string;
  readonly ties: readonly Tie[];
  /** What turns a file's names into those of modules: the first that matches, at all its places. */
  readonly renames: readonly (readonly [pattern: RegExp, replacement: string])[];
}

/** The table, whose parts, rows and nodes are read when they are asked for. */
export class Table {
  readonly #parts = new Map<string, string>();
  readonly #nodes = new Map<number, ReadonlyMap<string, Edge>>();
  readonly #lines = new Map<number, readonly string[]>();

  class(name: string): ClassRow | undefined {
    const part = CLASSES.findLast(([first]) => first <= name);
    const fields = part && rowOf(this.#text(part[1]), name);
    if (fields === undefined) return undefined;
    const [, root, versions = '', type = '', tied = '', prefix = '', ties = '', renames = ''] = fields;
    return {
      ...{ name, root: Number(root), versions, type, tied: tied === '1', prefix },
      ties: ties === '' ? [] : ties.split(',').map(tieOf),
      renames: renames === '' ? [] : (JSON.parse(renames) as [string, string][]).map(renameOf),
    };
  }

  /**
   * The class that stands where `className` does, of a part of another model type: for bare models and causal language models, which
   * transformers chooses by the type. Others it makes whatever the type is.
   */
  counterpart(className: string, type: string): ClassRow | undefined {
    const own = this.class(className);
    if (own === undefined || own.type === type) return own;
    const role = this.#type(own.type)?.indexOf(className) ?? -1;
    if (role < 1) return own;
    const other = this.#type(type)?.[role];
    return other === undefined ? undefined : this.class(other);
  }

  /** Whether the head of models of a type is tied where their configuration does not say; undefined for a type that is not known. */
  tiedByDefault(type: string): boolean | undefined {
    const [, bare = '', causal = ''] = this.#type(type) ?? [];
    return (this.class(causal) ?? this.class(bare))?.tied;
  }

  node(index: number): ReadonlyMap<string, Edge> {
    const known = this.#nodes.get(index);
    if (known) return known;
    const part = Math.floor(index / NODES_OF_PART);
    const lines = this.#lines.get(part) ?? unpacked(NODES[part]!).split('\n');
    this.#lines.set(part, lines);
    const line = lines[index % NODES_OF_PART]!;
    const node = new Map(line === '-' ? [] : line.split(' ').map(edgeOf));
    this.#nodes.set(index, node);
    return node;
  }

  /** A model type and the names of its classes: the bare model's, the causal language model's. */
  #type(name: string): readonly string[] | undefined {
    return rowOf(this.#text(TYPES), name);
  }

  #text(packed: string): string {
    const text = this.#parts.get(packed) ?? `\n${unpacked(packed)}\n`;
    this.#parts.set(packed, text);
    return text;
  }
}

function unpacked(packed: string): string {
  return brotliDecompressSync(Buffer.from(packed, 'base64')).toString('latin1');
}

/** Fields of the line that begins with a name. Not by a map of all: a model asks for one line or two. */
function rowOf(lines: string, name: string): readonly string[] | undefined {
  if (/[\t\n]/.test(name)) return undefined;
  const at = lines.indexOf(`\n${name}\t`);
  return at < 0 ? undefined : lines.slice(at + 1, lines.indexOf('\n', at + 1)).split('\t');
}

function edgeOf(word: string): [string, Edge] {
  const at = word.indexOf('=');
  const [, kind = '', index, member, className] = /^([A-Z?]?)(?:(\d+)|@(\w+):(\w+))?$/.exec(word.slice(at + 1))!;
  const part = member === undefined ? undefined : ([member, className!] as const);
  return [word.slice(0, at), { kind, node: index === undefined ? undefined : Number(index), part }];
}

function tieOf(text: string): Tie {
  const [target = '', source = ''] = text.split(' ');
  const always = source.endsWith('!');
  return { target, source: always ? source.slice(0, -1) : source, always };
}

/** A pattern of Python's `re.sub`: the same in JavaScript, but for how groups are called in the replacement. */
function renameOf([pattern, replacement]: [string, string]): readonly [RegExp, string] {
  return [new RegExp(pattern, 'g'), replacement.replaceAll('$', '$$$$').replace(/\\(\d)/g, '$$$1')];
}

let table: Table | undefined;

/** The table; a millisecond or two in all for the first model. */
export function readTable(): Table {
  table ??= new Table();
  return table;
}
