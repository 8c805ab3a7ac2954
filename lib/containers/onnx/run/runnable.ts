import * as fs from 'node:fs/promises';
import { basename, dirname, relative, sep } from 'node:path';
import { formatError, plain } from '../../../messages/text.js';
import type { LinearSite, TensorSource } from '../../container.js';
import type { GraphPart, Piece, RunnableGraph, Tap, ValueKind } from '../../runnable.js';
import { block, bytesOfMessage, whole } from '../encode.js';
import type { OnnxEnvelope, OnnxModel } from '../envelope.js';
import type { OnnxGraph } from '../graph.js';
import { externalMessage, isHole, type OnnxTensor } from '../tensors.js';
import { type Field, Message, messageOf, numberOf, textOf } from '../wire.js';
import { type Cut, cutGraph } from './parts.js';
import { slice } from './pieces.js';
import { inputsOf, valueField } from './values.js';

/** Tensors of fewer bytes go along with the graph: those who load it may need them to know shapes. */
const SMALL_BYTES = 1024;

/** Most bytes of a tensor that can lie in the graph alone: an attribute. */
const MAX_INLINE_BYTES = 64 * 1024 * 1024;

/** What exporters call what a language model says of the next token. */
const LOGITS = 'logits';

/** Where in files of the model's folder a tensor lies. */
export interface Place {
  readonly path: string;
  readonly offset: number;
}

/** What parts are made of. */
interface Given {
  readonly source: Pick<TensorSource, 'entries' | 'read'>;
  readonly model: OnnxModel;
  readonly placeOf: (name: string) => Place;
}

/** A model whose layers are tapped, all or those that `only` names. */
export async function runnable(
  given: Given,
  path: string,
  envelope: OnnxEnvelope,
  only?: ReadonlySet<string>,
): Promise<RunnableGraph> {
  const { model } = given;
  const { graph, prefix } = model;
  const main = await fs.realpath(path);
  const folder = dirname(main);
  const own = new Map(
    [...given.source.entries].filter(
      ([name]) => name.startsWith(prefix) && graph.tensors.has(name.slice(prefix.length)),
    ),
  );
  const sites = [...envelope.linears(own)].filter((site): site is LinearSite => 'shape' in site);
  const taps = new Map<string, { readonly layers: string[]; readonly inFeatures: number }>();
  const hidden: string[] = [];
  for (const site of sites) {
    if (only !== undefined && !only.has(site.name)) continue;
    const weight = envelope.weight(site.weight.name);
    if (weight === undefined || typeof weight === 'string') continue;
    const products = weight.uses.filter(({ kind }) => kind !== 'Gather');
    let isSeen = false;
    for (const { scope, node } of products) {
      const value = node.inputs[0]!;
      if (graph.homeOf(scope, value) !== graph.main || graph.main.tensors.has(value)) continue;
      isSeen = true;
      const tap = taps.get(value);
      if (tap === undefined) taps.set(value, { layers: [site.name], inFeatures: site.shape[1] });
      else if (!tap.layers.includes(site.name)) tap.layers.push(site.name);
    }
    if (!isSeen && products.length > 0) hidden.push(site.name);
  }
  const all: Tap[] = [...taps].map(([value, tap]) => ({ value, ...tap }));
  const isGiven = ({ value }: Tap) => graph.main.inputs.has(value);
  const maker = new PartMaker(given, folder);
  const partsFor = (wanted: readonly Tap[]): readonly GraphPart[] =>
    cutGraph(graph, wanted).map((cut) => ({
      ...cut,
      model: (kinds: ReadonlyMap<string, ValueKind>, piece?: Piece) => maker.part(cut, kinds, piece),
    }));
  const hasLogits = graph.main.outputs.has(LOGITS) && graph.main.producers.has(LOGITS);
  return {
    ...{ path, folder, hidden, inputs: inputsOf(graph), maxPositions: envelope.maxPositions },
    given: all.filter(isGiven),
    parts: partsFor(all.filter((tap) => !isGiven(tap))),
    logits: hasLogits ? { value: LOGITS, parts: partsFor([{ value: LOGITS, layers: [], inFeatures: 0 }]) } : undefined,
  };
}

/** Makes models of parts of a graph, whose larger weights stay where they lie. */
class PartMaker {
  readonly #given: Given;
  readonly #folder: string;
  readonly #graph: OnnxGraph;
  readonly #keys: ReadonlyMap<Message, string>;
  readonly #real = new Map<string, string>();

  constructor(given: Given, folder: string) {
    this.#given = given;
    this.#folder = folder;
    this.#graph = given.model.graph;
    this.#keys = new Map([...this.#graph.tensors].map(([key, { message }]) => [message, key]));
  }

  async part(
    { nodes, constants, inputs, outputs, product }: Cut,
    kinds: ReadonlyMap<string, ValueKind>,
    piece: Piece | undefined,
  ): Promise<Uint8Array> {
    const { main } = this.#graph;
    const fields: Field[] = [];
    for (const { field, outputs: made } of nodes) {
      // A Constant's numbers may be many: then they are a tensor of the graph.
      if (made[0] !== undefined && main.tensors.has(made[0])) continue;
      fields.push(await this.#node(field));
    }
    fields.push(block(2, 'part'));
    for (const name of constants) {
      const tensor = main.tensors.get(name);
      if (tensor === undefined) continue;
      const sliced = piece && product?.tensors.get(name);
      const entry = this.#given.model.prefix + tensor.key;
      const own = sliced ? await slice(this.#given.source, entry, sliced, piece) : await this.#initializer(tensor);
      fields.push(block(5, new Message([...own, block(8, name)])));
    }
    const declared = new Map(
      main.message.fields
        .filter(({ number, payload }) => number === 11 && payload instanceof Uint8Array)
        .map((field) => [nameOf(field, this.#graph.path), field] as const),
    );
    for (const name of inputs) fields.push(declared.get(name) ?? valueField(11, name, kinds.get(name)));
    for (const name of outputs) fields.push(valueField(12, name));
    const { message } = this.#given.model;
    const graph = block(7, new Message(fields));
    const own = message.fields.map((field) => (field.number === 7 ? graph : field));
    const version = message.bytes(1);
    // Before version 4 of the format tensors had to be inputs, too.
    if (numberOf(version) >= 4) return bytesOfMessage(new Message(own));
    return bytesOfMessage(new Message([whole(1, 4), ...own.filter(({ number }) => number !== 1)]));
  }

  /** A tensor but for its name. */
  async #initializer({ message }: OnnxTensor): Promise<readonly Field[]> {
    const own = await this.#tensor(message, false);
    return own.fields.filter(({ number }) => number !== 8);
  }

  /** A tensor with its numbers; or, of an initializer that has many, with where they lie. */
  async #tensor(message: Message, inline: boolean): Promise<Message> {
    const key = this.#keys.get(message);
    if (key === undefined) return message;
    const { bytes, spelt } = this.#graph.tensors.get(key)!;
    if (spelt) return message; // which has them
    const name = this.#given.model.prefix + key;
    if (bytes >= SMALL_BYTES && !inline) {
      const { path, offset } = this.#given.placeOf(name);
      return externalMessage(message, await this.#locate(path), offset, bytes);
    }
    if (bytes > MAX_INLINE_BYTES)
      throw formatError(
        this.#graph.path,
        `an attribute has ${bytes} bytes, of which at most ${MAX_INLINE_BYTES} are run.`,
      );
    const numbers = new Uint8Array(bytes);
    await this.#given.source.read(this.#given.source.entries.get(name)!, 0, numbers);
    const rest = message.fields.filter(({ number, payload }) => number !== 13 && number !== 14 && !isHole(payload));
    return new Message([...rest, block(9, numbers)]);
  }

  /** A node with the tensors that are within it. */
  async #node(field: Field): Promise<Field> {
    if (!(field.payload instanceof Message)) return field;
    const attributes = await this.#each(field.payload, async (attribute) => {
      if (!(attribute.payload instanceof Message)) return attribute;
      return block(attribute.number, await this.#each(attribute.payload, (own) => this.#attribute(own)));
    });
    return block(field.number, attributes);
  }

  async #attribute(field: Field): Promise<Field> {
    if (!(field.payload instanceof Message)) return field;
    if (field.number === 5 || field.number === 10) return block(field.number, await this.#tensor(field.payload, true));
    const graph = await this.#each(field.payload, async (own) => {
      if (!(own.payload instanceof Message)) return own;
      return own.number === 5 ? block(5, await this.#tensor(own.payload, false)) : this.#node(own);
    });
    return block(field.number, graph);
  }

  async #each(message: Message, change: (field: Field) => Promise<Field>): Promise<Message> {
    const fields: Field[] = [];
    for (const field of message.fields) fields.push(await change(field));
    return new Message(fields);
  }

  /** A file as it is found from the folder: through no link, which onnxruntime would not follow out of it. */
  async #locate(path: string): Promise<string> {
    let location = this.#real.get(path);
    if (location === undefined) {
      location = relative(this.#folder, await fs.realpath(path))
        .split(sep)
        .join('/');
      if (location.startsWith('../'))
        throw formatError(
          this.#graph.path,
          `${plain(basename(path))} leads out of its folder, from where onnxruntime reads nothing.`,
        );
      this.#real.set(path, location);
    }
    return location;
  }
}

function nameOf({ payload }: Field, path: string): string {
  return textOf(messageOf(payload as Uint8Array, path).bytes(1));
}
