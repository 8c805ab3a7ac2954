export type Bytes = Buffer;
export type Data = Float32Array | Uint16Array | Uint8Array | BigInt64Array | Int32Array;
export type TypeName = 'float32' | 'uint8' | 'int32' | 'int64' | 'float16' | 'bfloat16';
export type AttributeValue =
  | number
  | readonly number[]
  | { readonly float: number }
  | { readonly tensor: Bytes }
  | { readonly graph: Bytes };

export declare function varint(value: number | bigint): Bytes;
export declare function number(field: number, value: number | bigint): Bytes;
export declare function block(field: number, content: Uint8Array | string): Bytes;
export declare function tensor(
  name: string,
  type: TypeName,
  shape: readonly number[],
  data: Data,
  how?: 'raw' | 'float_data' | Readonly<Record<string, string | number>>,
): Bytes;
export declare function floats(name: string, shape: readonly number[], data: Float32Array): Bytes;
export declare function node(
  op: string,
  inputs: readonly string[],
  outputs: readonly string[],
  attributes?: Readonly<Record<string, AttributeValue>>,
  more?: { readonly name?: string; readonly domain?: string },
): Bytes;
export declare function value(name: string, type: TypeName, shape: readonly (number | string)[]): Bytes;
export declare function graph(parts: {
  readonly nodes: readonly Bytes[];
  readonly tensors?: readonly Bytes[];
  readonly inputs?: readonly Bytes[];
  readonly outputs: readonly Bytes[];
}): Bytes;
export declare function model(content: Bytes, more?: { ir?: number; opset?: number; more?: Bytes }): Bytes;
export declare function gaussian(count: number, seed?: number, scale?: number): Float32Array<ArrayBuffer>;
export declare function fieldsOf(message: Uint8Array): Map<number, (Uint8Array | bigint)[]>;

export interface ReadTensor {
  readonly name: string;
  readonly type: number;
  readonly shape: readonly number[];
  readonly raw: Uint8Array | undefined;
  readonly external: Readonly<Record<string, string>>;
}
export interface ReadNode {
  readonly op: string;
  readonly name: string;
  readonly domain: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  // biome-ignore lint/suspicious/noExplicitAny: numbers, lists, graphs
  readonly attributes: Readonly<Record<string, any>>;
}
export interface ReadGraph {
  readonly nodes: readonly ReadNode[];
  readonly tensors: Readonly<Record<string, ReadTensor>>;
  readonly inputs: readonly string[];
}
export declare function read(file: Uint8Array): ReadGraph & { readonly opsets: Readonly<Record<string, number>> };
