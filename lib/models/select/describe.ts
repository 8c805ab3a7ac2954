import { layerOf } from '../../containers/names.js';
import { architectureOf, classNameOf } from './architecture.js';
import { modulesOf } from './known.js';

/** What is known of the architecture of a model, for people. */
export interface ArchitectureInfo {
  /** Its class, as config.json names it; undefined where it names none. */
  readonly name: string | undefined;
  /** Whether its class is known, and its matrices are called as those of the class are. */
  readonly known: boolean;
  /** Matrices of each kind: names of their modules. Absent where it is not known. */
  readonly modules?: Readonly<Record<string, readonly string[]>>;
  /** Modules that share a matrix, and which of the two names the files hold. Absent where it is not known. */
  readonly tied?: readonly {
    readonly module: string;
    readonly source: string;
    readonly held: 'source' | 'module' | 'both';
  }[];
}

/** What is known of the architecture that config.json names, by the tensors that the model has. */
export async function describeArchitecture(
  config: Readonly<Record<string, unknown>> | undefined,
  tensors: readonly { readonly name: string; readonly shape: readonly number[] }[],
): Promise<ArchitectureInfo> {
  const family = config?.['general.architecture']; // of a GGUF file, whose tensors are named after no modules
  if (typeof family === 'string') return { name: family, known: true };
  const name = classNameOf(config);
  const known = await architectureOf(config, modulesOf(tensors));
  if (known === undefined) return { name, known: false };
  const modules: Record<string, string[]> = {};
  const held = new Set<string>();
  for (const tensor of tensors) {
    const module = layerOf(tensor.name);
    const kind = known.kindOf(module);
    held.add(known.moduleOf(module) ?? module);
    if (tensor.shape.length !== 2 && kind !== 'experts') continue;
    const lies = known.expertsOf(module) === 'in-out' ? ', [expert, in, out]' : ', [expert, out, in]';
    const float = known.isKeptInFloat(module) ? ', float32 in transformers' : '';
    const label = kind === undefined ? 'unknown' : LABELS[kind] + (kind === 'experts' ? lies : float);
    modules[label] = [...(modules[label] ?? []), tensor.name];
  }
  const tied = [...known.tiedNames(held)].flatMap(([module, source]) => {
    const [a, b] = [held.has(module), held.has(source)];
    return a || b
      ? [{ module, source, held: a && b ? ('both' as const) : a ? ('module' as const) : ('source' as const) }]
      : [];
  });
  return { name, known: true, modules, tied };
}

const LABELS = {
  linear: 'linear',
  head: 'output head',
  read: 'linear, read past the layer',
  transposed: 'Conv1D, [in, out]',
  embedding: 'embedding',
  experts: 'stack of experts',
  other: 'other matrix',
  unsure: 'by its configuration',
} as const;
