import type { LinearSite } from '../../containers/container.js';
import type { NBits, QuantConfig, ResolvedQuantConfig } from '../../matrix/config.js';
import type { DType } from '../../matrix/dtype.js';
import type { Misfit } from '../../matrix/fit.js';
import { nearestDivisors } from '../../matrix/geometry.js';
import { resolveQuantConfig } from '../../matrix/options.js';
import { HqqError, show } from '../../messages/errors.js';
import { plain } from '../../messages/text.js';
import type { ZeroPoint } from '../../solvers/solver.js';
import { SOLVERS, solverNamed } from '../../solvers/solvers.js';
import type { LayerForm, LayerOptions, Refused, StayingLayer, Stays } from '../scheme.js';
import { checkRows } from './chunks.js';

// Layers as the engines of Python have them: `nn.Linear`, groups that are parts of its rows, zeros that are codes.

/** How such a layer is quantized. */
export interface RowForm extends LayerForm {
  readonly shape: readonly [outFeatures: number, inFeatures: number];
  /** A row is one group because it was asked for so, or nothing else fits: not because it is as short as a group. */
  readonly wholeRows: boolean;
}

/** What a format can hold. */
export interface RowRules {
  /** As people call it. */
  readonly title: string;
  readonly nbits: readonly NBits[];
  /** The zeros that it holds. */
  readonly zeroPoints: readonly ZeroPoint[];
  /** The types of its scales. */
  readonly scaleDtypes: readonly DType[];
  /** Output features that are packed together, and kept in one chunk: parts of a layer are multiples of it. */
  readonly together: number;
  /** Why a matrix cannot be held as it is to be; undefined where it can. */
  unfit?(shape: readonly [number, number], config: ResolvedQuantConfig): string | undefined;
  /** Why engines do not load a layer in this format, whatever its matrix; undefined where they do. */
  unloaded?(site: LinearSite): string | undefined;
  /** Why a layer may not stay as it is either, unless that is asked for; undefined where it may. */
  refuses?(site: LinearSite, title: string): string | undefined;
  /** Whether a layer may take another group size than others, unasked. Absent: always. */
  adapts?(config: ResolvedQuantConfig): boolean;
}

const refuse = (expected: string, got: string): never => {
  throw new HqqError('ERR_INVALID_OPTION', `Expected ${expected}, got ${got}.`);
};

/**
 * Refuses what a format can never hold.
 *
 * @param asked What was asked for, with the format's own defaults.
 * @throws {HqqError} `ERR_INVALID_OPTION`
 */
export function checkRowConfig(asked: QuantConfig, metaDtype: LayerOptions['metaDtype'], rules: RowRules): void {
  const { title } = rules;
  const { solver, zeroPoint, nbits, axis, granularity, metaBits, scaleDtype, roundZero } = asked;
  if (solver !== undefined && SOLVERS.includes(solver)) {
    const able = SOLVERS.filter((name) => rules.zeroPoints.some((kind) => solverNamed(name).zeroPoints.includes(kind)));
    if (!able.includes(solver)) {
      refuse(`solver to be one of ${able.join(', ')} for ${title}, which holds no floating-point zeros`, show(solver));
    }
  }
  const choice = <T>(name: string, value: T | undefined, choices: readonly T[], why = '') => {
    if (value === undefined || choices.includes(value)) return;
    refuse(
      `${name} to be ${choices.length > 1 ? `one of ${choices.join(', ')}` : choices[0]} for ${title}${why}`,
      show(value),
    );
  };
  choice('zeroPoint', zeroPoint, rules.zeroPoints);
  choice('nbits', nbits, rules.nbits);
  choice('axis', axis, [1]);
  choice('granularity', granularity, ['group', 'channel']);
  choice('metaBits', metaBits, [16]);
  choice('roundZero', roundZero, [false], ', whose zeros are found as codes');
  choice('scaleDtype', scaleDtype, rules.scaleDtypes);
  if (metaDtype === 'auto') return;
  choice('metaDtype', metaDtype, rules.scaleDtypes);
  if (scaleDtype !== undefined && scaleDtype !== metaDtype)
    refuse(`metaDtype to be ${scaleDtype}, as scaleDtype is`, show(metaDtype));
}

/** Names of routers of experts: engines compute with them as they are, whatever the configuration says. */
const ROUTER = /(?:^|\.)(?:gate|router|shared_expert_gate)$/;

/** Whether a layer is one of several experts. */
export const isExpert = (name: string): boolean => /(?:^|\.)experts\.\d+\./.test(name);

/** Of a layer of experts, for formats that transformers loads none of. */
export const refusesExperts = (
  { name, partOf }: Pick<LinearSite, 'name' | 'partOf'>,
  title: string,
): string | undefined =>
  isExpert(name) || partOf !== undefined
    ? `transformers fills experts of ${title} with random numbers, without a message`
    : undefined;

/** Of experts that stay since engines load none of the format: the way out. */
export function expertNotes(title: string, stays: readonly StayingLayer[]): readonly string[] {
  const count = stays.filter(({ layer }) => isExpert(layer)).length;
  if (count === 0) return [];
  const [what, stay] = count === 1 ? ['layer', 'stays'] : ['layers', 'stay'];
  return [
    `${count} ${what} of experts ${stay} in floats, since transformers loads none of ${title}: --to compressed-tensors holds them quantized.`,
  ];
}

/** The form of a layer, or why it stays as it is. */
export function fitRows(site: LinearSite, options: LayerOptions, rules: RowRules): RowForm | Misfit | Stays | Refused {
  const { shape, stored, doubt, embedding, name, weight } = site;
  const { title } = rules;
  if (embedding) return { stays: `embedding: ${title} has linear layers only` };
  if (stored === 'in-out' && site.partOf === undefined)
    return { stays: `stored [in, out]: ${title} has nn.Linear only` };
  if (doubt) return { stays: `${doubt.reason}: ${title} has nn.Linear only` };
  if (weight.name === name) return { stays: `not named <module>.weight, as ${title} needs` };
  if (ROUTER.test(name)) return { stays: 'router of experts, which engines do not load quantized' };
  const refused = rules.refuses?.(site, title);
  if (refused !== undefined) return { refused };
  const unloaded = rules.unloaded?.(site);
  if (unloaded !== undefined) return { stays: unloaded };
  const config = resolveQuantConfig({ ...options.config, scaleDtype: scaleDtypeOf(options, rules) });
  const unfit = rules.unfit?.(shape, config);
  if (unfit !== undefined) return { stays: `${unfit}, which ${title} does not hold` };
  checkRows(plain(weight.name), shape, rules.together);
  const asked = config.groupSize;
  const form = (groupSize: number, wholeRows: boolean, adapted?: string): RowForm => ({
    ...{ config: { ...config, groupSize }, shape, wholeRows },
    ...(adapted === undefined ? {} : { adapted }),
  });
  const [, inFeatures] = shape;
  if (asked === null) return form(inFeatures, true);
  const given = options.config.groupSize !== undefined;
  // Engines want all layers of all experts alike: what a size is to divide are the rows of those that lead in and of those that lead out.
  const sizes = isExpert(name) && !given ? [inFeatures, shape[0]] : [inFeatures];
  const uneven = (group: number) => sizes.find((size) => size % group !== 0);
  const odd = uneven(asked);
  if (odd === undefined) return form(asked, false);
  const reason = `groups of ${asked} do not divide rows of ${odd}`;
  if (given) return { reason, asked, sizes: nearestDivisors(inFeatures, asked) };
  if (rules.adapts?.(config) === false) {
    return { stays: `${reason}, and ${title} has one size for all such layers (--group-size)` };
  }
  const half = asked / 2;
  return uneven(half) === undefined
    ? form(half, false, `group size ${half}: ${reason}`)
    : form(inFeatures, true, `whole rows of ${inFeatures}: ${reason}`);
}

/** The type of a layer's scales: what was asked for; else that in which engines compute, so that they round nothing. */
function scaleDtypeOf({ config, metaDtype, modelDtype }: LayerOptions, { scaleDtypes }: RowRules): DType {
  if (config.scaleDtype !== undefined) return config.scaleDtype;
  if (metaDtype !== 'auto') return metaDtype;
  const own = modelDtype === 'bfloat16' ? 'bfloat16' : 'float16';
  return scaleDtypes.includes(own) ? own : scaleDtypes[0]!;
}

/** Groups of a row. */
export const groupsOfRow = ({ shape, config }: RowForm): number => shape[1] / config.groupSize;
