import type { AttentionArgs, CacheSegment } from '../../../binding.js';
import { CACHE_GROUP, KEY_STRIP } from '../../matrix/constants.js';
import { floatOfHalf, halfOfFloat } from './lanes.js';
import { Meter } from './meter.js';
import type { Units } from './slices.js';

// Attention in plain JavaScript: what a cache keeps has the bits of native kernels, what is computed from it is summed in float64.

const f = Math.fround;

/** A segment, and where it begins in its text. */
interface Place {
  readonly begin: number;
  readonly segment: CacheSegment;
}

export function* attention(args: AttentionArgs): Units {
  const { rows, heads, kvHeads, headDim, window, scale, softcap, q, out } = args;
  const places = placesOf(args);
  const positions = checkedPositions(args, places);
  append(args, positions, places);
  const meter = new Meter();
  const last = positions.reduce((most, position) => Math.max(most, position), 0);
  const weights = new Float64Array(Math.ceil((last + 1) / KEY_STRIP) * KEY_STRIP);
  const sums = new Float64Array(headDim);
  const strip = new Float64Array(headDim * KEY_STRIP);
  const value = new Float64Array(headDim);
  for (let r = 0; r < rows; r++) {
    const end = positions[r]! + 1;
    const first = window > 0 ? Math.max(0, end - window) : 0;
    for (let h = 0; h < heads; h++) {
      const at = (r * heads + h) * headDim;
      const head = Math.floor((h * kvHeads) / heads);
      // Strips are whole: scores of positions that the row does not see are computed, and not used.
      for (let j = first - (first % KEY_STRIP); j < end; j += KEY_STRIP) {
        const [keys, from] = readStrip(args, placeOf(places, j), head, j, strip);
        scoresOfStrip(q, at, keys, from, headDim, weights, j);
      }
      if (softcap > 0)
        for (let j = first; j < end; j++) weights[j] = (softcap / scale) * Math.tanh((weights[j]! * scale) / softcap);
      let highest = -Infinity;
      for (let j = first; j < end; j++) highest = weights[j]! > highest ? weights[j]! : highest;
      let total = 0;
      sums.fill(0);
      for (let j = first; j < end; j++) {
        const weight = Math.exp(scale * (weights[j]! - highest));
        const [values, from] = readValue(args, placeOf(places, j), head, j, value);
        total += weight;
        for (let d = 0; d < headDim; d++) sums[d] = sums[d]! + weight * values[from + d]!;
      }
      for (let d = 0; d < headDim; d++) out[at + d] = sums[d]! / total;
      if (meter.due(2 * (end - first) * (headDim + 8))) yield;
    }
  }
}

function placesOf({ segments }: AttentionArgs): readonly Place[] {
  let begin = 0;
  return segments.map((segment) => {
    const place = { begin, segment };
    begin += segment.capacity;
    return place;
  });
}

function placeOf(places: readonly Place[], position: number): Place {
  return places.find(({ begin, segment }) => position < begin + segment.capacity)!;
}

/** The positions as they are now: they may change while this runs. */
function checkedPositions({ positions }: AttentionArgs, places: readonly Place[]): Int32Array {
  const now = positions.slice();
  const last = places.at(-1)!;
  const capacity = last.begin + last.segment.capacity;
  const wrong = now.find((position) => position < 0 || position >= capacity);
  if (wrong === undefined) return now;
  throw new RangeError(`Expected positions to be in [0, ${capacity - 1}], got ${wrong}.`);
}

/** Where elements of a row are: `at + d * stride`, and scale and least element of a group at `meta`, `meta + metaStride`, ... */
interface Line {
  readonly at: number;
  readonly stride: number;
  readonly meta: number;
}

const groupsOf = (headDim: number) => Math.ceil(headDim / CACHE_GROUP);

function keyLine({ headDim }: AttentionArgs, { begin, segment }: Place, head: number, position: number): Line {
  const lane = position % KEY_STRIP;
  const strip = head * segment.capacity + position - begin - lane;
  const meta = strip * groupsOf(headDim) * 2 + lane;
  return { at: strip * headDim + lane, stride: KEY_STRIP, meta };
}

function valueLine({ headDim }: AttentionArgs, { begin, segment }: Place, head: number, position: number): Line {
  const row = head * segment.capacity + position - begin;
  return { at: row * headDim, stride: 1, meta: row * groupsOf(headDim) * 2 };
}

/** Writes the rows' own keys and values to their places. */
function append(args: AttentionArgs, positions: Int32Array, places: readonly Place[]): void {
  const { kvHeads, headDim, cacheType, k, v } = args;
  positions.forEach((position, r) => {
    const place = placeOf(places, position);
    const { keys, values, keyMeta, valueMeta } = place.segment;
    for (let g = 0; g < kvHeads; g++) {
      const from = (r * kvHeads + g) * headDim;
      const [key, value] = [k.subarray(from, from + headDim), v.subarray(from, from + headDim)];
      writeLine(key, cacheType, keys, keyMeta, keyLine(args, place, g, position));
      writeLine(value, cacheType, values, valueMeta, valueLine(args, place, g, position));
    }
  });
}

/** Largest float16. */
const MOST = 65504;

function writeLine(x: Float32Array, type: number, to: CacheSegment['keys'], meta: Float32Array, line: Line): void {
  const { at, stride } = line;
  if (type === 2) {
    for (let g = 0; g * CACHE_GROUP < x.length; g++) {
      const begin = g * CACHE_GROUP;
      const group = x.subarray(begin, begin + CACHE_GROUP);
      const [scale, least] = encodeGroup(group, to, at + begin * stride, stride);
      meta[line.meta + 2 * g * stride] = scale;
      meta[line.meta + (2 * g + 1) * stride] = least;
    }
    return;
  }
  for (let d = 0; d < x.length; d++)
    to[at + d * stride] = type === 0 ? x[d]! : halfOfFloat(Math.min(MOST, Math.max(-MOST, x[d]!)));
}

/** `encode_cache_group` of native/core/cache.h. */
function encodeGroup(
  x: Float32Array,
  codes: CacheSegment['keys'],
  at: number,
  stride: number,
): [scale: number, least: number] {
  let [low, high, finite] = [x[0]!, x[0]!, true];
  for (const value of x) {
    if (value < low) low = value;
    if (value > high) high = value;
    if (Number.isNaN(value)) finite = false;
  }
  const width = f(high - low);
  const step = f(width / 255);
  finite &&= Number.isFinite(width);
  if (!finite || step < 2 ** -126) {
    for (let i = 0; i < x.length; i++) codes[at + i * stride] = 0;
    return [0, finite ? low : NaN];
  }
  const inverse = f(1 / step);
  for (let i = 0; i < x.length; i++) {
    const level = f(f(f(x[i]! - low) * inverse) + 2 ** 23);
    codes[at + i * stride] = Math.min(f(level - 2 ** 23), 255);
  }
  return [step, low];
}

/** Numbers, and where they begin. */
type Numbers = readonly [array: CacheSegment['keys'] | Float64Array, at: number];

/** Sixteen keys side by side, as floats: where they are, or else in `strip`. */
function readStrip(args: AttentionArgs, place: Place, head: number, position: number, strip: Float64Array): Numbers {
  const { keys, keyMeta } = place.segment;
  const { at, meta } = keyLine(args, place, head, position);
  if (args.cacheType === 0) return [keys, at];
  for (let i = 0; i < strip.length; i++) strip[i] = keys[at + i]!;
  if (args.cacheType === 1) for (let i = 0; i < strip.length; i++) strip[i] = floatOfHalf(strip[i]!);
  if (args.cacheType !== 2) return [strip, 0];
  for (let i = 0; i < strip.length; i++) {
    const own = meta + Math.floor(i / (CACHE_GROUP * KEY_STRIP)) * 2 * KEY_STRIP + (i % KEY_STRIP);
    strip[i] = strip[i]! * keyMeta[own]! + keyMeta[own + KEY_STRIP]!;
  }
  return [strip, 0];
}

function readValue(args: AttentionArgs, place: Place, head: number, position: number, value: Float64Array): Numbers {
  const { values, valueMeta } = place.segment;
  const { at, meta } = valueLine(args, place, head, position);
  if (args.cacheType === 0) return [values, at];
  for (let d = 0; d < value.length; d++) value[d] = values[at + d]!;
  if (args.cacheType === 1) for (let d = 0; d < value.length; d++) value[d] = floatOfHalf(value[d]!);
  if (args.cacheType !== 2) return [value, 0];
  for (let d = 0; d < value.length; d++) {
    const own = meta + Math.floor(d / CACHE_GROUP) * 2;
    value[d] = value[d]! * valueMeta[own]! + valueMeta[own + 1]!;
  }
  return [value, 0];
}

function scoresOfStrip(
  q: Float32Array,
  atQ: number,
  keys: Numbers[0],
  atKeys: number,
  headDim: number,
  scores: Float64Array,
  atScores: number,
): void {
  for (let lane = 0; lane < KEY_STRIP; lane += 4) {
    let s0 = 0;
    let s1 = 0;
    let s2 = 0;
    let s3 = 0;
    for (let d = 0, i = atKeys + lane; d < headDim; d++, i += KEY_STRIP) {
      const x = q[atQ + d]!;
      s0 += x * keys[i]!;
      s1 += x * keys[i + 1]!;
      s2 += x * keys[i + 2]!;
      s3 += x * keys[i + 3]!;
    }
    scores[atScores + lane] = s0;
    scores[atScores + lane + 1] = s1;
    scores[atScores + lane + 2] = s2;
    scores[atScores + lane + 3] = s3;
  }
}
