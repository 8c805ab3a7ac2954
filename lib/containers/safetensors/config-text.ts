// Edits of config.json in its text: parsing and printing it again would turn 1e-05 into 0.00001 and stumble over Infinity.

/** Where a member of the top object stands in the text. */
interface Member {
  /** Of the comma before it, or of the key when it is the first. */
  readonly begin: number;
  /** Where its value begins. */
  readonly value: number;
  /** Behind the value. */
  readonly end: number;
  readonly first: boolean;
}

/** `text`, a JSON object, with the member `key` as its last, indented as the rest; one that it has is replaced. */
export function withMember(text: string, key: string, value: unknown): string {
  const base = withoutMember(text, key);
  const brace = base.lastIndexOf('}');
  const body = base.slice(0, brace).trimEnd();
  const indent = /^\{\s*?\n([ \t]+)"/.exec(base.trimStart())?.[1] ?? '  ';
  const pretty = base.includes('\n') || body === '{';
  const json = pretty ? JSON.stringify(value, null, indent).replaceAll('\n', `\n${indent}`) : pythonOneLine(value);
  const member = `${JSON.stringify(key)}: ${json}`;
  const gap = pretty ? `\n${indent}` : ' ';
  const tail = body.endsWith('{') ? (pretty ? '\n}' : '}') : base.slice(body.length, brace + 1);
  const lead = body.endsWith('{') ? (pretty ? gap : '') : `,${gap}`;
  return `${body}${lead}${member}${tail}${base.slice(brace + 1)}`;
}

/** `text` without the member `key` of the top object; everything else as it was. */
export function withoutMember(text: string, key: string): string {
  const member = findMember(text, key);
  if (!member) return text;
  if (!member.first) return text.slice(0, member.begin) + text.slice(member.end);
  // The first: the comma that goes is the one behind it, with the space up to the next key.
  const rest = text.slice(member.end);
  const comma = /^\s*,\s*/.exec(rest);
  return text.slice(0, member.begin) + (comma ? rest.slice(comma[0].length) : rest);
}

/** `text` with another value, one of a single line, of a member that it has: `path` leads there through objects. */
export function withValue(text: string, [key, ...rest]: readonly string[], value: unknown): string {
  const member = key === undefined ? undefined : findMember(text, key);
  if (!member) return text;
  const old = text.slice(member.value, member.end);
  const next = rest.length === 0 ? JSON.stringify(value) : withValue(old, rest, value);
  return text.slice(0, member.value) + next + text.slice(member.end);
}

/** The text was parsed before: it is sound JSON, so strings and brackets are all that must be told apart. */
function findMember(text: string, key: string): Member | undefined {
  let depth = 0;
  let keyAt = -1; // of the member that is being passed, at the top level
  let keyEnd = 0;
  let previousEnd = -1;
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (char === '"') {
      const start = at;
      for (at++; text[at] !== '"'; at++) if (text[at] === '\\') at++;
      if (depth === 1 && keyAt < 0) [keyAt, keyEnd] = [start, at + 1];
    } else if (char === '{' || char === '[') depth++;
    else if ((char === ',' && depth === 1) || ((char === '}' || char === ']') && --depth === 0)) {
      const end = text.slice(0, at).trimEnd().length;
      if (keyAt >= 0 && JSON.parse(text.slice(keyAt, keyEnd)) === key) {
        const value = keyEnd + /^\s*:\s*/.exec(text.slice(keyEnd, end))![0].length;
        return { begin: previousEnd < 0 ? keyAt : previousEnd, value, end, first: previousEnd < 0 };
      }
      previousEnd = end;
      keyAt = -1;
    }
  }
  return undefined;
}

function pythonOneLine(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(pythonOneLine).join(', ')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  return `{${Object.entries(value)
    .map(([key, item]) => `${JSON.stringify(key)}: ${pythonOneLine(item)}`)
    .join(', ')}}`;
}
