/** What is narrower is laid out as if it were this wide. */
const LEAST_COLUMNS = 20;

/** Columns of the terminal that a stream is; undefined where it is none. `COLUMNS` in the environment overrules the terminal. */
export function columnsOf(stream: NodeJS.WriteStream): number | undefined {
  if (!stream.isTTY) return undefined;
  const told = Number(process.env.COLUMNS);
  const columns = Number.isSafeInteger(told) && told > 0 ? told : stream.columns;
  return columns > 0 ? Math.max(columns, LEAST_COLUMNS) : undefined; // some terminals say 0
}

/** Columns of standard output; infinitely many where it is no terminal, and lines may be as long as they like. */
export function outputColumns(): number {
  return columnsOf(process.stdout) ?? Infinity;
}

/** Up to where a word that is too long is cut: behind its last space, or the last joint of a name or path. */
const JOINT = /^.*[ ./_,:-]/s;

/**
 * Lines of at most `width` characters: cut between words, and within a word that is longer. Lines after the first begin with
 * `indent`. `words` may hold spaces, where a line is cut only if it has to be.
 */
export function wrap(words: readonly string[], width: number, indent = '', lead = ''): string[] {
  const lines: string[] = [];
  let [margin, line] = [lead.length, lead];
  const next = (rest: string): void => {
    lines.push(line.trimEnd());
    [margin, line] = [indent.length, indent + rest];
  };
  for (const word of words) {
    if (line.length === margin) line += word;
    else if (line.length + 1 + word.length <= width) line += ` ${word}`;
    else next(word);
    while (line.length > width) {
      const joint = JOINT.exec(line.slice(margin, width))?.[0].length;
      const cut = joint === undefined ? width : margin + joint;
      const rest = line.slice(cut);
      line = line.slice(0, cut);
      next(rest);
    }
  }
  return [...lines, line];
}

/** `wrap` for a text: its words are between spaces. */
export function wrapText(text: string, width: number, indent = '', lead = ''): string[] {
  return lead.length + text.length <= width ? [lead + text] : wrap(text.split(' '), width, indent, lead);
}
