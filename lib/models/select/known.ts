import type { OtherTensor, TensorSource } from '../../containers/container.js';
import { FLATTENED, STACKED } from '../../containers/experts.js';
import { layerOf } from '../../containers/names.js';
import { plain, quote, quoteSome } from '../../messages/text.js';
import { plural } from '../../messages/units.js';
import { SCHEMES } from '../../schemes/list.js';
import type { Scheme } from '../../schemes/scheme.js';
import { type Architecture, architectureOf, classNameOf } from './architecture.js';

// What is known of a model that is to be quantized, and what is said where that is little.

/** How the reason begins why a matrix stays that a known class is not known to have. */
export const NOT_KNOWN = 'not known of';

/** Modules of a model that may have a matrix, by the names of its tensors. */
export function modulesOf(tensors: Iterable<{ readonly name: string; readonly shape: readonly number[] }>): string[] {
  const names: string[] = [];
  for (const { name, shape } of tensors) if (shape.length === 2) names.push(layerOf(name));
  return names;
}

export function knownOf({ envelope, entries }: TensorSource): Promise<Architecture | undefined> {
  return architectureOf(envelope.config, modulesOf(entries.values()));
}

/** That names and shapes alone have told what is a layer. */
export function guessedNote({ envelope }: TensorSource, layers: readonly string[]): string | undefined {
  if (layers.length === 0 || !envelope.tellsClass) return undefined;
  const name = classNameOf(envelope.config);
  const why =
    envelope.config === undefined
      ? 'nothing says of which'
      : name === undefined
        ? 'config.json names none ("architectures")'
        : `config.json says ${quote(name)}`;
  const what = `${plural(layers.length, 'weight')} (${quoteSome(layers, 2)})`;
  return `The architecture is unknown: ${why}. By names and shapes ${what} ${layers.length === 1 ? 'was' : 'were'} taken for linear layers.`;
}

/** Of stacks of experts that stay because the output has no place for them. */
export function stackedNote(dense: readonly OtherTensor[], { title, unloadedExperts }: Scheme): string | undefined {
  const stacks = dense.filter(({ reason }) => reason === STACKED).map(({ entry }) => entry.name);
  if (stacks.length === 0) return undefined;
  const able = SCHEMES.filter(({ experts }) => experts).map((scheme) => scheme.title);
  const formats = able.length === 0 ? '' : ` Formats that can hold them, one by one: ${able.join(', ')}.`;
  const what = `${plural(stacks.length, 'tensor')} (${quoteSome(stacks, 1)}) ${stacks.length === 1 ? 'holds' : 'hold'} all experts of a layer`;
  const apart =
    unloadedExperts === undefined ? ' Saved as a tensor for each expert, as most models are, they are quantized.' : '';
  return `${what} and ${stacks.length === 1 ? 'stays as it is' : 'stay as they are'}: a layer of ${title} is one matrix.${formats}${apart}`;
}

/** Of experts that lie one below the other in a matrix, as DBRX has them. */
export function flattenedNote(dense: readonly OtherTensor[]): string | undefined {
  const names = dense.filter(({ reason }) => reason === FLATTENED).map(({ entry }) => entry.name);
  if (names.length === 0) return undefined;
  const [hold, stay] = names.length === 1 ? ['holds', 'stays as it is'] : ['hold', 'stay as they are'];
  return (
    `${plural(names.length, 'tensor')} (${quoteSome(names, 1)}) ${hold} all experts of a layer in one matrix and ${stay}: transformers ` +
    'multiplies by parts of it, so that no quantized layer can stand in its place there. Most of the weights of such a model are in them.'
  );
}

/** Of a class that transformers 4 has not. */
export function versionNote({ name, versions }: Architecture): string | undefined {
  if (versions !== '5') return undefined;
  return `${plain(name)} is a class of transformers 5 alone: docs/python.md says how what is quantized loads there.`;
}

/** Of a model that is known: matrices of it that are not. */
export function strangeNote({ name }: Architecture, dense: readonly OtherTensor[]): string | undefined {
  const strange = dense.filter(({ reason }) => reason === `${NOT_KNOWN} ${name}`).map(({ entry }) => entry.name);
  if (strange.length === 0) return undefined;
  const what = `${plural(strange.length, 'weight')} that ${plain(name)} is not known to have (${quoteSome(strange, 2)})`;
  return `${what} ${strange.length === 1 ? 'stays' : 'stay'} as ${strange.length === 1 ? 'it is' : 'they are'}. Include by name what is to be quantized all the same.`;
}
