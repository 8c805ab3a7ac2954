import { createHash } from 'node:crypto';

/** What a library for a 64-bit Mac says of itself. */
export interface MachOFacts {
  readonly cpu: number;
  readonly fileType: number;
  /** 1 is macOS. */
  readonly platform: number;
  /** The oldest system that it runs on, as `11.0`. */
  readonly minimum: string;
  /** What it calls itself. */
  readonly installName: string;
  readonly libraries: readonly string[];
  readonly exports: readonly string[];
  /** Symbols that are to be found in whatever is loaded, and those that are to be found in a library. */
  readonly imports: { readonly anywhere: readonly string[]; readonly fromLibraries: readonly string[] };
  /** Symbols that stripping would have taken away: neither exported nor imported. */
  readonly localSymbols: readonly string[];
  readonly signature: Signature | undefined;
}

export interface Signature {
  /** Signed with nobody's key: enough for what is not downloaded by a browser. */
  readonly adHoc: boolean;
  /** Every page of the file has the digest that the signature says. */
  readonly intact: boolean;
}

const stringAt = (bytes: Buffer, at: number) => bytes.toString('latin1', at, bytes.indexOf(0, at));
const BUILD_VERSION = 0x32;
const SYMTAB = 0x2;
const CODE_SIGNATURE = 0x1d;
const ID_DYLIB = 0xd;
const DYLD_INFO = 0x80000022;
const LOAD_DYLIB = [0xc, 0x80000018, 0x8000001f]; // plain, weak, re-exported

export function readMachO(file: Buffer): MachOFacts {
  if (file.readUInt32LE(0) !== 0xfeedfacf) throw new Error('Expected a 64-bit Mach-O file.');
  const commands: { type: number; bytes: Buffer }[] = [];
  for (let i = 0, at = 32; i < file.readUInt32LE(16); i++, at += file.readUInt32LE(at + 4)) {
    commands.push({ type: file.readUInt32LE(at), bytes: file.subarray(at, at + file.readUInt32LE(at + 4)) });
  }
  const only = (type: number) => {
    const command = commands.find((c) => c.type === type);
    if (!command) throw new Error(`Expected a load command of type ${type}, got none.`);
    return command.bytes;
  };
  const version = only(BUILD_VERSION);
  const minimum = version.readUInt32LE(12);
  const signature = commands.find(({ type }) => type === CODE_SIGNATURE)?.bytes;
  return {
    cpu: file.readUInt32LE(4),
    fileType: file.readUInt32LE(12),
    platform: version.readUInt32LE(8),
    minimum: `${minimum >> 16}.${(minimum >> 8) & 255}`,
    installName: stringAt(only(ID_DYLIB), only(ID_DYLIB).readUInt32LE(8)),
    libraries: commands
      .filter(({ type }) => LOAD_DYLIB.includes(type))
      .map(({ bytes }) => stringAt(bytes, bytes.readUInt32LE(8))),
    ...readSymbols(file, only(SYMTAB)),
    imports: readImports(file, only(DYLD_INFO)),
    signature: signature && readSignature(file, signature.readUInt32LE(8)),
  };
}

function readSymbols(file: Buffer, command: Buffer) {
  const [offset, count, strings] = [
    command.readUInt32LE(8),
    command.readUInt32LE(12),
    file.subarray(command.readUInt32LE(16)),
  ];
  const [EXTERNAL, TYPE] = [0x01, 0x0e];
  const symbols = Array.from({ length: count }, (_, i) => {
    const entry = file.subarray(offset + 16 * i, offset + 16 * i + 16);
    const type = entry[4]!;
    return {
      name: stringAt(strings, entry.readUInt32LE(0)),
      external: (type & EXTERNAL) !== 0,
      undefined: (type & TYPE) === 0,
    };
  });
  return {
    exports: symbols.filter((s) => s.external && !s.undefined).map(({ name }) => name),
    localSymbols: symbols.filter((s) => !s.external).map(({ name }) => name),
  };
}

/** What the dynamic linker is told to look for, at once and at first calls: a program of one-byte operations. */
function readImports(file: Buffer, command: Buffer) {
  const [ORDINAL, ORDINAL_LEB, SPECIAL, SYMBOL, BIND] = [0x10, 0x20, 0x30, 0x40, 0x90];
  const numbersAfter: Readonly<Record<number, number>> = { 96: 1, 112: 1, 128: 1, 160: 1, 192: 2 };
  const FLAT = 0x0e; // -2, of the four bits that there are
  const anywhere = new Set<string>();
  const fromLibraries = new Set<string>();
  for (const field of [16, 32]) {
    const begin = command.readUInt32LE(field);
    const bytes = file.subarray(begin, begin + command.readUInt32LE(field + 4));
    let [flat, name] = [false, ''];
    for (let at = 0; at < bytes.length; ) {
      const [operation, value] = [bytes[at]! & 0xf0, bytes[at]! & 0x0f];
      at++;
      const skipNumber = () => {
        while (bytes[at++]! & 0x80);
      };
      if (operation === SPECIAL) flat = value === FLAT;
      if (operation === ORDINAL) flat = false;
      if (operation === ORDINAL_LEB) [flat] = [false, skipNumber()];
      if (operation === SYMBOL) {
        name = stringAt(bytes, at);
        at += name.length + 1;
      }
      if (operation >= BIND) (flat ? anywhere : fromLibraries).add(name);
      for (let i = 0; i < (numbersAfter[operation] ?? 0); i++) skipNumber();
    }
  }
  return { anywhere: [...anywhere], fromLibraries: [...fromLibraries] };
}

/** The signature's own numbers are big-endian. */
function readSignature(file: Buffer, offset: number): Signature {
  const [SUPER_BLOB, CODE_DIRECTORY, AD_HOC, SHA256] = [0xfade0cc0, 0xfade0c02, 2, 2];
  if (file.readUInt32BE(offset) !== SUPER_BLOB) throw new Error('Expected a signature where the load command points.');
  const blobs = Array.from(
    { length: file.readUInt32BE(offset + 8) },
    (_, i) => offset + file.readUInt32BE(offset + 16 + 8 * i),
  );
  const directory = blobs.find((at) => file.readUInt32BE(at) === CODE_DIRECTORY);
  if (directory === undefined) throw new Error('Expected a code directory in the signature, got none.');
  const [hashes, slots, limit] = [16, 28, 32].map((field) => file.readUInt32BE(directory + field)) as [
    number,
    number,
    number,
  ];
  const [hashSize, hashType, pageBits] = [file[directory + 36]!, file[directory + 37]!, file[directory + 39]!];
  const page = 2 ** pageBits;
  const isIntact = (slot: number) => {
    const bytes = file.subarray(slot * page, Math.min((slot + 1) * page, limit));
    const at = directory + hashes + slot * hashSize;
    return createHash('sha256')
      .update(bytes)
      .digest()
      .equals(file.subarray(at, at + hashSize));
  };
  return {
    adHoc: (file.readUInt32BE(directory + 12) & AD_HOC) !== 0,
    intact: hashType === SHA256 && limit === offset && Array.from({ length: slots }, (_, i) => i).every(isIntact),
  };
}
