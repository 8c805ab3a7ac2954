/** A text that may come, and what of it is missing. */
interface Missing {
  readonly whole: string;
  readonly rest: string;
}

/** Texts of which one is to come, read together: as many as there are, they are one way to read what has come. */
export class Literals {
  /** The text that has come whole, if one has. */
  readonly done: string | undefined;
  readonly #missing: readonly Missing[];
  #open: readonly string[] | undefined;
  #next: Map<string, Literals> | undefined;

  private constructor(missing: readonly Missing[]) {
    this.done = missing.find(({ rest }) => rest === '')?.whole;
    this.#missing = this.done === undefined ? missing : missing.filter(({ rest }) => rest !== '');
  }

  /** The texts of which something is missing. */
  get open(): readonly string[] {
    this.#open ??= this.#missing.map(({ whole }) => whole);
    return this.#open;
  }

  /** @param written How a text is written, the part of it that is to come. */
  static of(texts: Iterable<string>, written: (text: string) => string = (text) => text): Literals {
    return new Literals([...new Set(texts)].map((whole) => ({ whole, rest: written(whole) })));
  }

  /** Those that go on with a character; undefined: none. */
  after(char: string): Literals | undefined {
    this.#next ??= this.#byFirst();
    return this.#next.get(char);
  }

  #byFirst(): Map<string, Literals> {
    const groups = new Map<string, Missing[]>();
    const add = (char: string, one: Missing) => {
      const group = groups.get(char);
      if (group) group.push(one);
      else groups.set(char, [one]);
    };
    for (const { whole, rest: text } of this.#missing) {
      const first = String.fromCodePoint(text.codePointAt(0)!);
      const rest = text.slice(first.length);
      add(first, { whole, rest });
      // What tokens may have in parts alone may be written as escapes.
      if (first >= '\u0080') add('\\', { whole, rest: escapeOf(first).slice(1) + rest });
    }
    return new Map([...groups].map(([char, group]) => [char, new Literals(group)]));
  }
}

function escapeOf(char: string): string {
  const units = Array.from({ length: char.length }, (_, i) => char.charCodeAt(i).toString(16).padStart(4, '0'));
  return units.map((digits) => `\\u${digits}`).join('');
}
