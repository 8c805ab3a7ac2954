/** What an ELF shared object for a 64-bit little-endian machine says of itself. */
export interface ElfFacts {
  readonly machine: number;
  readonly needed: readonly string[];
  readonly exports: readonly string[];
  /** Undefined symbols with their version, as `name@GLIBC_2.17`; weak ones not. */
  readonly imports: readonly string[];
  /** Versions that libraries must have, as `libc.so.6: GLIBC_2.17`. */
  readonly versions: readonly string[];
  readonly sections: readonly string[];
  /** It stays in memory when it is closed. */
  readonly noDelete: boolean;
  readonly executableStack: boolean;
  /** Where it would look for libraries first, if anywhere. */
  readonly runPath: boolean;
}

interface Section {
  readonly name: string;
  readonly type: number;
  readonly bytes: Buffer;
  /** Index of the section of strings, or how many entries there are. */
  readonly link: number;
  readonly info: number;
}

const stringAt = (bytes: Buffer, at: number) => bytes.toString('latin1', at, bytes.indexOf(0, at));
const DYNAMIC = 6;
const DYNSYM = 11;
const VERNEED = 0x6ffffffe;
const VERSYM = 0x6fffffff;

export function readElf(file: Buffer): ElfFacts {
  if (file.toString('latin1', 0, 6) !== '\x7fELF\x02\x01') throw new Error('Expected a 64-bit little-endian ELF file.');
  const sections = readSections(file);
  const only = (type: number) => {
    const section = sections.find((s) => s.type === type);
    if (!section) throw new Error(`Expected a section of type ${type}, got none.`);
    return section;
  };
  const strings = (section: Section) => sections[section.link]!.bytes;

  const dynamic = only(DYNAMIC);
  const entries = Array.from({ length: dynamic.bytes.length / 16 }, (_, i) => ({
    tag: Number(dynamic.bytes.readBigUInt64LE(16 * i)),
    value: Number(dynamic.bytes.readBigUInt64LE(16 * i + 8)),
  }));
  const [NEEDED, RPATH, RUNPATH, FLAGS_1, NODELETE] = [1, 15, 29, 0x6ffffffb, 8];

  const { names, all: versions } = readVersions(
    sections.find((s) => s.type === VERNEED),
    strings,
  );
  const versionOf = sections.find((s) => s.type === VERSYM)?.bytes;
  const table = only(DYNSYM);
  const symbols = Array.from({ length: table.bytes.length / 24 }, (_, i) => {
    const entry = table.bytes.subarray(24 * i, 24 * i + 24);
    const version = names.get((versionOf?.readUInt16LE(2 * i) ?? 0) & 0x7fff);
    const name = stringAt(strings(table), entry.readUInt32LE(0));
    return { name, version, weak: entry[4]! >> 4 === 2, local: entry[4]! >> 4 === 0, section: entry.readUInt16LE(6) };
  }).filter(({ name, local }) => name !== '' && !local);

  return {
    machine: file.readUInt16LE(18),
    needed: entries.filter(({ tag }) => tag === NEEDED).map(({ value }) => stringAt(strings(dynamic), value)),
    exports: symbols.filter(({ section }) => section !== 0).map(({ name }) => name),
    imports: symbols
      .filter(({ section, weak }) => section === 0 && !weak)
      .map(({ name, version }) => (version === undefined ? name : `${name}@${version}`)),
    versions,
    sections: sections.map(({ name }) => name),
    noDelete: entries.some(({ tag, value }) => tag === FLAGS_1 && (value & NODELETE) !== 0),
    executableStack: hasExecutableStack(file),
    runPath: entries.some(({ tag }) => tag === RPATH || tag === RUNPATH),
  };
}

function readSections(file: Buffer): Section[] {
  const [offset, size, count, names] = [
    Number(file.readBigUInt64LE(40)),
    file.readUInt16LE(58),
    file.readUInt16LE(60),
    file.readUInt16LE(62),
  ];
  const headers = Array.from({ length: count }, (_, i) => file.subarray(offset + i * size, offset + (i + 1) * size));
  const bytesOf = (header: Buffer) => {
    const NOBITS = 8;
    if (header.readUInt32LE(4) === NOBITS) return Buffer.alloc(0);
    const begin = Number(header.readBigUInt64LE(24));
    return file.subarray(begin, begin + Number(header.readBigUInt64LE(32)));
  };
  const nameBytes = bytesOf(headers[names]!);
  return headers.map((header) => ({
    name: stringAt(nameBytes, header.readUInt32LE(0)),
    type: header.readUInt32LE(4),
    bytes: bytesOf(header),
    link: header.readUInt32LE(40),
    info: header.readUInt32LE(44),
  }));
}

/** The names of versions by their index, and a list of all with the libraries that must have them. */
function readVersions(section: Section | undefined, strings: (section: Section) => Buffer) {
  const names = new Map<number, string>();
  const all: string[] = [];
  if (section === undefined) return { names, all };
  const { bytes } = section;
  for (let i = 0, at = 0; i < section.info; i++, at += bytes.readUInt32LE(at + 12)) {
    const library = stringAt(strings(section), bytes.readUInt32LE(at + 4));
    let entry = at + bytes.readUInt32LE(at + 8);
    for (let k = 0; k < bytes.readUInt16LE(at + 2); k++, entry += bytes.readUInt32LE(entry + 12)) {
      const name = stringAt(strings(section), bytes.readUInt32LE(entry + 8));
      names.set(bytes.readUInt16LE(entry + 6), name);
      all.push(`${library}: ${name}`);
    }
  }
  return { names, all };
}

function hasExecutableStack(file: Buffer): boolean {
  const [GNU_STACK, EXECUTE] = [0x6474e551, 1];
  const [offset, size, count] = [Number(file.readBigUInt64LE(32)), file.readUInt16LE(54), file.readUInt16LE(56)];
  const headers = Array.from({ length: count }, (_, i) => file.subarray(offset + i * size));
  const stack = headers.find((header) => header.readUInt32LE(0) === GNU_STACK);
  return stack === undefined || (stack.readUInt32LE(4) & EXECUTE) !== 0; // without the header, old kernels make it executable
}
