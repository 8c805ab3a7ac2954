/** What tells files of a kind from others. Containers are such kinds. */
export interface FileKind {
  /** As a message calls such a file: "a safetensors file". */
  readonly title: string;
  /** How names of such files end, with the dot, in small letters. */
  readonly ending: string;
  /** What follows the name of such a file in that of another one that belongs to it, where there is one. Absent: there is none. */
  readonly beside?: string | undefined;
  /** The sub-folder of a model's folder that such files lie in. Absent: they lie at its top. */
  readonly folder?: string;
  /** Whether a file of `size` bytes that begins with `prefix` is one. */
  begins(prefix: Uint8Array, size: number): boolean;
  /** Whether a file of this name may be one of several that hold one model. */
  isPart(name: string): boolean;
}

/** Bytes of a file that a kind may look at, where there are as many. */
export const PREFIX_BYTES = 64;
