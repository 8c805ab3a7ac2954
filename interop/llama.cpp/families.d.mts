export const FAMILIES: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
export const IDS: readonly number[];
export function writeFamily(folder: string, name: string, options?: { turned?: boolean; own?: object }): string;
