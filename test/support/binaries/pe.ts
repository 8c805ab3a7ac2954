/** What a Windows library for a 64-bit machine says of itself. */
export interface PeFacts {
  readonly machine: number;
  readonly isLibrary: boolean;
  readonly libraries: readonly string[];
  /** Libraries that would be loaded at a function's first call. */
  readonly delayed: boolean;
  readonly exports: readonly string[];
  readonly sections: readonly string[];
  /** Symbols of the object format, which stripping takes away. */
  readonly symbols: number;
  /** May be put at any address, with data that cannot be executed. */
  readonly hardened: boolean;
}

const stringAt = (bytes: Buffer, at: number) => bytes.toString('latin1', at, bytes.indexOf(0, at));

export function readPe(file: Buffer): PeFacts {
  const header = file.readUInt32LE(0x3c);
  if (file.toString('latin1', header, header + 4) !== 'PE\0\0') throw new Error('Expected a Windows (PE) file.');
  const optional = header + 24;
  if (file.readUInt16LE(optional) !== 0x20b) throw new Error('Expected a 64-bit Windows (PE32+) file.');

  const table = optional + file.readUInt16LE(header + 20);
  const sections = Array.from({ length: file.readUInt16LE(header + 6) }, (_, i) => {
    const at = table + 40 * i;
    const [size, address, raw] = [file.readUInt32LE(at + 8), file.readUInt32LE(at + 12), file.readUInt32LE(at + 20)];
    return { name: file.toString('latin1', at, at + 8).replace(/\0+$/, ''), size, address, raw };
  });
  /** Where in the file an address of memory is. */
  const at = (address: number) => {
    const section = sections.find((s) => address >= s.address && address < s.address + s.size);
    if (!section) throw new Error(`Expected address ${address} to be in a section.`);
    return address - section.address + section.raw;
  };
  const directory = (index: number) => file.readUInt32LE(optional + 112 + 8 * index);
  const [EXPORTS, IMPORTS, DELAYED] = [0, 1, 13];

  const libraries: string[] = [];
  for (let entry = at(directory(IMPORTS)); file.readUInt32LE(entry + 12) !== 0; entry += 20) {
    libraries.push(stringAt(file, at(file.readUInt32LE(entry + 12))));
  }
  const exported = at(directory(EXPORTS));
  const names = at(file.readUInt32LE(exported + 32));
  const count = file.readUInt32LE(exported + 24);
  const [DLL, DYNAMIC_BASE_AND_NX] = [0x2000, 0x140];
  return {
    machine: file.readUInt16LE(header + 4),
    isLibrary: (file.readUInt16LE(header + 22) & DLL) !== 0,
    libraries,
    delayed: directory(DELAYED) !== 0,
    exports: Array.from({ length: count }, (_, i) => stringAt(file, at(file.readUInt32LE(names + 4 * i)))),
    sections: sections.map(({ name }) => name),
    symbols: file.readUInt32LE(header + 12),
    hardened: (file.readUInt16LE(optional + 70) & DYNAMIC_BASE_AND_NX) === DYNAMIC_BASE_AND_NX,
  };
}
