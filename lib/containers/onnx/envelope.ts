import { createHash } from 'node:crypto';
import { basename, join } from 'node:path';
import { HqqError } from '../../messages/errors.js';
import { plain, quoteSome } from '../../messages/text.js';
import type {
  Companion,
  Envelope,
  EnvelopeChange,
  LinearSite,
  Obstacle,
  OtherTensor,
  TensorEntry,
  TensorSpec,
} from '../container.js';
import { layerOf } from '../names.js';
import type { ConfigFile } from '../safetensors/envelope.js';
import { withDeclared } from './declared.js';
import { piecesOf } from './encode.js';
import type { NodeForm } from './forms.js';
import type { OnnxGraph } from './graph.js';
import { MAX_CHUNK_BYTES, type OnnxDraft } from './layout.js';
import { restoreModel } from './restore.js';
import { type Replacement, rewriteModel } from './rewrite.js';
import type { OnnxTensor } from './tensors.js';
import { CONFIG, nameOf, typeOf, withoutType, withTypes } from './transformers-js.js';
import { type Weight, weightOf } from './weights.js';
import { type Message, messageOf, numberOf, textOf } from './wire.js';

/** One model of those that a source holds. */
export interface OnnxModel {
  /** Name of its file in the source. */
  readonly file: string;
  readonly message: Message;
  readonly graph: OnnxGraph;
  /** Goes before the names of its tensors: '' where it is the only model. */
  readonly prefix: string;
  /** Whether some of its tensors lie in files beside it. */
  readonly apart: boolean;
  /** Of one of several forms of a model: what transformers.js calls it, and the prefix of the original. Its file is called as its output. */
  readonly form?: { readonly type: string; readonly original: string };
}

/** Sides of a matrix, and weights of it, from which codes are worth their scales and nodes. */
const LEAST_SIDE = 64;
const LEAST_WEIGHTS = 2 ** 14;

/** Names of nodes that compute the output head. */
const HEAD = /(?:^|[./])lm_head(?:[./]|$)/;

/** Operators that compute with integers, or make floats of them: whoever wrote them has quantized the model. */
const QUANTIZED = /^(QLinear|MatMulInteger|DynamicQuantize|DequantizeLinear|ConvInteger|QGemm|QAttention)/;

interface Surroundings {
  readonly models: readonly OnnxModel[];
  /** What the output will be called; of a folder that of its files. Undefined: as they are. */
  readonly output?: string | undefined;
  /** The folder, and files of it that are carried over. Undefined for a single file. */
  readonly folder?: { readonly path: string; readonly files: readonly string[]; readonly config: ConfigFile };
  readonly notes: readonly string[];
  /** Weights that become codes, by their names, and their tensors. */
  readonly forms?: ReadonlyMap<string, NodeForm>;
  readonly tensors?: ReadonlyMap<string, readonly TensorSpec[]>;
}

/** What surrounds the tensors of ONNX files: their graphs. */
export class OnnxEnvelope implements Envelope {
  readonly models: readonly OnnxModel[];
  readonly notes: readonly string[];
  readonly #given: Surroundings;
  /** Files whose tensors will lie in others, and in how many. */
  readonly #apart = new Map<string, number>();
  #weights: ReadonlyMap<string, Weight | string> | undefined;

  constructor(given: Surroundings) {
    this.#given = given;
    this.models = given.models;
    this.notes = given.notes;
  }

  /** What the first graph says of itself. */
  get config(): Readonly<Record<string, unknown>> {
    const [{ message, graph }] = this.models as readonly [OnnxModel];
    const opsets = message.all(8).map((payload) => {
      const opset = messageOf(payload as Uint8Array, graph.path);
      return [textOf(opset.bytes(1)) || 'ai.onnx', numberOf(opset.bytes(2))] as const;
    });
    return {
      ir_version: numberOf(message.bytes(1)),
      opset: Object.fromEntries(opsets),
      ...(message.bytes(2) ? { producer: [textOf(message.bytes(2)), textOf(message.bytes(3))].join(' ').trim() } : {}),
    };
  }

  /** Tokens of the longest text, where config.json says so. */
  get maxPositions(): number | undefined {
    const most = this.#given.folder?.config.value.max_position_embeddings;
    return Number.isSafeInteger(most) && (most as number) > 0 ? (most as number) : undefined;
  }

  get fingerprint(): string {
    const hash = createHash('sha256');
    for (const { file, message } of this.models) {
      hash.update(file);
      for (const piece of piecesOf(message)) hash.update(piece instanceof Uint8Array ? piece : `${piece.entry}`);
    }
    hash.update(this.#given.folder?.config.text ?? '');
    return hash.digest('hex');
  }

  obstacle(): Obstacle | undefined {
    for (const { graph } of this.models) {
      const nodes = graph.scopes.flatMap((scope) => scope.nodes.filter(({ op }) => QUANTIZED.test(op)));
      if (nodes.length === 0) continue;
      const what = `is quantized already: ${nodes.length} ${nodes.length === 1 ? 'node computes' : 'nodes compute'} with integers (${nodes[0]!.op})`;
      return { kind: 'quantized', seen: true, what, advice: 'Quantize the float original instead.' };
    }
    return undefined;
  }

  /** The same around other forms of the models. */
  around(models: readonly OnnxModel[]): OnnxEnvelope {
    return new OnnxEnvelope({ ...this.#given, models });
  }

  *linears(entries: ReadonlyMap<string, TensorEntry>): Generator<LinearSite | OtherTensor> {
    const models = new Map(this.models.map((model) => [model.file, model]));
    for (const entry of entries.values()) {
      const weight = this.weight(entry.name);
      if (typeof weight === 'string' || weight === undefined) {
        yield { entry, reason: weight ?? 'an attribute of a node', linear: false };
        continue;
      }
      const isTensor = (name: string) => entries.has(name);
      const site = siteOf(entry, weight, layerNameOf(entry.name, isTensor));
      const { form, prefix } = models.get(entry.file)!;
      if (form === undefined) {
        yield site;
        continue;
      }
      const original = form.original + site.name.slice(prefix.length);
      yield { ...site, original, nodes: [...(site.nodes ?? []), original, form.original + weight.tensor.key] };
    }
  }

  /** What a tensor is to its graph; undefined for none of the model. */
  weight(name: string): Weight | string | undefined {
    if (this.#weights === undefined) {
      const weights = new Map<string, Weight | string>();
      for (const { graph, prefix } of this.models) {
        for (const scope of graph.scopes) {
          for (const tensor of scope.tensors.values())
            if (tensor.key !== undefined) weights.set(prefix + tensor.key, weightOf(graph, scope, tensor));
        }
      }
      this.#weights = weights;
    }
    return this.#weights.get(name);
  }

  /** @param change `set` has the form of each weight, by its name: `NodeForm`. */
  replace({ layers, set }: EnvelopeChange): OnnxEnvelope {
    const forms = new Map(Object.entries(set as Record<string, NodeForm>));
    const tensors = new Map([...layers].map((layer) => [layer.name, layer.tensors]));
    const changed = new OnnxEnvelope({ ...this.#given, forms, tensors });
    const names = this.models.map(({ file }) => changed.outputName(file));
    if (new Set(names).size === names.length) return changed;
    const { folder } = this.#given;
    const files = quoteSome(this.models.map(({ file }) => file));
    const message = `${plain(folder!.path)} holds several forms of one model, which would become one file: ${files}`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. Pass one of the files.`);
  }

  outputName(file: string): string {
    const { folder, tensors } = this.#given;
    if (folder === undefined || tensors === undefined || this.models[0]?.form) return file;
    const type = this.#type();
    return type === undefined ? withoutType(file) : nameOf(file, type);
  }

  *companions(): Generator<Companion> {
    const { folder } = this.#given;
    if (folder === undefined) return;
    const type = this.#type() ?? (this.#given.tensors && 'fp32');
    const written = new Map(
      this.models.map(({ file }) => [basename(this.outputName(file)), this.#apart.get(file) ?? 0]),
    );
    yield { name: CONFIG, text: type === undefined ? folder.config.text : withTypes(folder.config, type, written) };
    for (const name of folder.files) yield { name, copyOf: join(folder.path, name) };
  }

  /** What transformers.js calls most of the weights that become codes; undefined where none do. */
  #type(): string | undefined {
    const [model] = this.models;
    if (model?.form) return model.form.type;
    const counts = new Map<number, number>();
    for (const [name, { bits }] of this.#given.forms ?? []) {
      const weight = this.weight(name);
      // Of tables bits are asked for apart: they tell only where nothing else does.
      const isTable = typeof weight === 'object' && weight.uses.some(({ kind }) => kind === 'Gather');
      counts.set(bits, (counts.get(bits) ?? 0) + (isTable ? 1e-6 : 1));
    }
    const [most] = [...counts].sort((a, b) => b[1] - a[1]);
    return most && typeOf(most[0]);
  }

  /** The model of a file as it is to be written. */
  draftOf(file: string): OnnxDraft {
    const { output, forms = new Map<string, NodeForm>(), tensors } = this.#given;
    const model = this.models.find((own) => own.file === file)!;
    const { graph, prefix, message, apart } = model;
    const replacements: Replacement[] = [];
    for (const [name, form] of forms) {
      const weight = name.startsWith(prefix) ? this.weight(name) : undefined;
      if (weight === undefined || typeof weight === 'string' || graph.tensors.get(weight.tensor.key!) !== weight.tensor)
        continue;
      const own = tensors!
        .get(layerNameOf(name, (own) => graph.tensors.has(own.slice(prefix.length))))!
        .map((spec) => ({ ...spec, name: spec.name.slice(prefix.length) }));
      replacements.push({ weight, form, tensors: own });
    }
    const keys = new Map([...graph.tensors].map(([key, tensor]: [string, OnnxTensor]) => [tensor.message, key]));
    const restored = new Map<string, TensorSpec>();
    for (const specs of forms.size > 0 ? [] : (tensors?.values() ?? []))
      for (const spec of specs) if (spec.name.startsWith(prefix)) restored.set(spec.name.slice(prefix.length), spec);
    const changed =
      restored.size > 0 ? restoreModel(message, graph, restored) : rewriteModel(message, graph, replacements);
    const own = changed === message ? message : withDeclared(changed, graph);
    const told = (files: number) => void this.#apart.set(file, files);
    // Those of a folder may be loaded by browsers.
    const chunkBytes = this.#given.folder === undefined ? Infinity : MAX_CHUNK_BYTES;
    const name = output ?? basename(this.outputName(file));
    return { message: own, prefix, keyOf: (tensor) => keys.get(tensor), name, apart, chunkBytes, told };
  }
}

/** The layer that a weight belongs to. Beside a tensor `x`, `x.weight` is a layer of that whole name. */
export function layerNameOf(weight: string, isTensor: (name: string) => boolean): string {
  const name = layerOf(weight);
  return name !== weight && isTensor(name) ? weight : name;
}

function siteOf(entry: TensorEntry, { shape, stored, dtype, uses }: Weight, name: string): LinearSite {
  const nodes = uses.map(({ node }) => node.name).filter((name) => name !== '');
  const gathers = uses.some(({ kind }) => kind === 'Gather');
  const multiplies = uses.some(({ kind }) => kind !== 'Gather');
  const isHead = multiplies && [entry.name, ...nodes].some((name) => HEAD.test(name));
  const [outs, ins] = shape;
  const small = Math.min(outs, ins) < LEAST_SIDE || outs * ins < LEAST_WEIGHTS;
  const doubt = gathers
    ? { reason: multiplies ? 'embedding, which the output head shares' : 'embedding', linear: multiplies }
    : undefined;
  // What stays unless a pattern names it.
  const head = isHead
    ? 'lm_head'
    : small
      ? `small: less than ${LEAST_SIDE} rows or columns, or ${LEAST_WEIGHTS} weights`
      : undefined;
  return {
    ...{ name, weight: entry, shape, stored, computed: dtype, nodes },
    ...(doubt ? { doubt } : {}),
    ...(gathers ? { embedding: true as const } : head === undefined ? {} : { head }),
  };
}
