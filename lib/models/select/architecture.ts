import type { KnownModules, ModuleKind } from '../../containers/known-modules.js';
import { yieldIfDue } from '../../files/event-loop.js';
import { type ClassRow, type Edge, readTable, type Table, type Tie } from './table.js';

// What transformers knows of a model whose config.json names its class: of each module what it is, and which are tied.

type Config = Readonly<Record<string, unknown>>;

const KINDS: Readonly<Record<string, ModuleKind>> = {
  L: 'linear',
  F: 'linear',
  I: 'linear',
  J: 'linear',
  H: 'head',
  R: 'read',
  T: 'transposed',
  E: 'embedding',
  X: 'experts',
  Y: 'experts',
  P: 'other',
  '?': 'unsure',
};

/** Parts of config.json that describe the language model, which is where its head is said to be tied. */
const TEXT_PARTS: readonly string[] = ['text_config', 'decoder', 'generator'];

/** Least part of the matrices that must be called as those of the class are: else it is another model that bears its name. */
const FEWEST_KNOWN = 0.5;

/** A class of models, as one configuration has it. */
export class Architecture implements KnownModules {
  readonly name: string;
  readonly ties: readonly Tie[];
  readonly #table: Table;
  readonly #row: ClassRow;
  readonly #config: Config;
  /** By member of the configuration: the class of a part that is not the one by default; undefined for one that is not known. */
  readonly #parts = new Map<string, ClassRow | undefined>();
  readonly #modules = new Map<string, string | undefined>();

  constructor(table: Table, row: ClassRow, config: Config) {
    this.#table = table;
    this.#row = row;
    this.#config = config;
    this.name = row.name;
    const tied = this.#tied();
    this.ties = row.ties.filter(({ always }) => always || tied);
  }

  /** Which transformers have it: "4", "5", "45". */
  get versions(): string {
    return this.#row.versions;
  }

  kindOf(module: string): ModuleKind | undefined {
    return KINDS[this.#letterOf(module) ?? ''];
  }

  /** Whether transformers keeps it in float32 whatever type it is asked for. */
  isKeptInFloat(module: string): boolean {
    return /^[FJ]$/.test(this.#letterOf(module) ?? '');
  }

  isReadAtLoading(module: string): boolean {
    return /^[IJ]$/.test(this.#letterOf(module) ?? '');
  }

  expertsOf(module: string): 'in-out' | 'out-in' | undefined {
    const letter = this.#letterOf(module);
    return letter === 'X' ? 'in-out' : letter === 'Y' ? 'out-in' : undefined;
  }

  /** `kindOf` by the name that transformers gives a module. */
  kindOfModule(name: string): ModuleKind | undefined {
    return KINDS[this.#letter(name) ?? ''];
  }

  /** Pairs of modules that share a matrix, where a pattern says so of those of `modules`. */
  *tiedNames(modules: Iterable<string>): Generator<readonly [target: string, source: string]> {
    const bySource = new Map<string, string[]>();
    for (const module of modules) {
      const pattern = starred(module);
      if (pattern !== module) bySource.set(pattern, [...(bySource.get(pattern) ?? []), module]);
    }
    for (const { target, source } of this.ties) {
      if (!target.includes('*')) yield [target, source];
      else for (const name of bySource.get(source) ?? []) yield [filled(target, name), name];
    }
  }

  sourceOf(module: string): string | undefined {
    const name = this.moduleOf(module) ?? module;
    const pattern = starred(name);
    const tie = this.ties.find(({ target }) => target === name || target === pattern);
    if (tie) return filled(tie.source, name);
    // A layer that others take their weight from can be no other layer either.
    if (!['linear', 'head'].includes(this.kindOfModule(name) ?? '')) return undefined;
    const other = this.ties.find(({ source }) => source === name || source === pattern);
    return other && filled(other.target, name);
  }

  moduleOf(name: string): string | undefined {
    if (!this.#modules.has(name)) this.#modules.set(name, this.#find(name));
    return this.#modules.get(name);
  }

  /** Whether the matrices of a model are called as those of the class are. */
  async fits(names: Iterable<string>): Promise<boolean> {
    let known = 0;
    let all = 0;
    for (const name of names) {
      await yieldIfDue();
      all++;
      if (this.moduleOf(name) !== undefined) known++;
    }
    return all === 0 || known / all >= FEWEST_KNOWN;
  }

  /** As transformers finds the module of a tensor: by its name, renamed, with the name of the bare model before it or without it. */
  #find(name: string): string | undefined {
    const { prefix, renames } = this.#row;
    const rename = renames.find(([pattern]) => name.search(pattern) >= 0);
    const renamed = rename && name.replaceAll(...rename); // wherever it matches, as Python's re.sub
    const known = (other: string | undefined) => other !== undefined && this.#letter(other) !== undefined;
    if (known(renamed)) return renamed;
    if (known(name)) return name;
    if (prefix === '') return undefined;
    if (known(`${prefix}.${name}`)) return `${prefix}.${name}`;
    const bare = name.startsWith(`${prefix}.`) ? name.slice(prefix.length + 1) : undefined;
    return known(bare) ? bare : undefined;
  }

  /** `#letter` by the name that a file has. */
  #letterOf(module: string): string | undefined {
    const name = this.moduleOf(module);
    return name === undefined ? undefined : this.#letter(name);
  }

  /** The letter of a module's kind; undefined for what is no module of the class with a matrix. */
  #letter(module: string): string | undefined {
    let node: number | undefined = this.#row.root;
    let edge: Edge | undefined;
    let config = this.#config;
    for (const part of module.split('.')) {
      if (node === undefined) return undefined;
      const edges = this.#table.node(node);
      edge = edges.get(part) ?? (/^\d+$/.test(part) ? edges.get('*') : undefined);
      if (edge === undefined) return undefined;
      if (edge.part) {
        const own = partOf(config, edge.part[0]);
        node = this.#part(edge.part, own)?.root;
        config = own ?? {};
      } else node = edge.node;
    }
    return edge?.kind === '' ? undefined : edge?.kind;
  }

  #part([member, className]: readonly [string, string], config: Config | undefined): ClassRow | undefined {
    const type = config?.model_type;
    const key = `${member} ${className} ${String(type)}`;
    if (!this.#parts.has(key)) {
      const row = typeof type === 'string' ? this.#table.counterpart(className, type) : this.#table.class(className);
      this.#parts.set(key, row);
    }
    return this.#parts.get(key);
  }

  /** Whether the configuration ties the head: a part that says so, else the class. */
  #tied(): boolean {
    const text = TEXT_PARTS.map((member) => partOf(this.#config, member)).find((part) => part !== undefined);
    const said = [text?.tie_word_embeddings, this.#config.tie_word_embeddings];
    if (said.includes(true)) return true;
    // transformers 4.57 asks the part alone, where there is one.
    if ((text ?? this.#config).tie_word_embeddings === false) return false;
    const type = text?.model_type;
    return (typeof type === 'string' ? this.#table.tiedByDefault(type) : undefined) ?? this.#row.tied;
  }
}

function partOf(config: Config, member: string): Config | undefined {
  const part = config[member];
  return typeof part === 'object' && part !== null && !Array.isArray(part) ? (part as Config) : undefined;
}

function starred(name: string): string {
  return name.replace(/(^|\.)\d+(?=\.|$)/g, '$1*');
}

/** A pattern with the numbers of a name in place of its stars. */
function filled(pattern: string, name: string): string {
  const numbers = name.split('.').filter((part) => /^\d+$/.test(part));
  return pattern
    .split('.')
    .map((part) => (part === '*' ? (numbers.shift() ?? part) : part))
    .join('.');
}

/** The name of the class that config.json gives a model; undefined where it gives none. */
export function classNameOf(config: Config | undefined): string | undefined {
  // transformers 4.57 writes those of Qwen2-VL and its kin into the part that is the language model.
  for (const part of [config, config && partOf(config, 'text_config')]) {
    const name = Array.isArray(part?.architectures) ? (part.architectures[0] as unknown) : undefined;
    if (typeof name === 'string') return name;
  }
  return undefined;
}

/**
 * What is known of the model that config.json describes; undefined where its class is not known, or its matrices are not called as
 * those of the class are. The table is read here, and by nobody else.
 *
 * @param names Of matrices: of their modules, where they are called `<module>.weight`.
 */
export async function architectureOf(
  config: Config | undefined,
  names: readonly string[],
): Promise<Architecture | undefined> {
  const className = classNameOf(config);
  if (config === undefined || className === undefined) return undefined;
  const table = readTable();
  const row = table.class(className);
  if (row === undefined) return undefined;
  const architecture = new Architecture(table, row, config);
  return (await architecture.fits(names)) ? architecture : undefined;
}
