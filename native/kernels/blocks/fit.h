#pragma once
#include <limits>

#include "lanes.h"

// Least squares inside a block type's own storage. All is computed in float, in the order that is written:
// lib/backend/js/blocks/fit.ts does the same. What codes leave of the sum of h w^2 is less by their gain,
//
//   sum of h (w^2 - (w - (s q - b))^2) = s (2 sum h q w - s sum h q^2 + 2 b sum h q) - b (2 sum h w + b sum h)
//
// which is had of sums that do not depend on s and b.
namespace hqq::kernels {

// One call's sub-blocks, sixteen side by side.
template <class V>
struct BlockFit {
  const BlockType& type;
  const BlockOptions& options;
  BlockStrip strip;
  BlockCodes range;
  BlockKnown known;
  BlockLanes scale, minimum;  // of sub-blocks
  BlockLanes d, m;            // of their blocks
  BlockLanes whole, least;    // whole scales and minima

  BlockFit(const BlockType& of, const BlockOptions& by, const BlockStrip& from)
      : type(of),
        options(by),
        strip(from),
        range{static_cast<float>(of.low), static_cast<float>(of.high), of.curved, of.minima} {
    know_lanes<V>(strip, known);
  }

  // The best of a few steps from some starts, and then some more.
  void fit() {
    BlockLanes best_scale, best_minimum, best_gain;
    for (size_t k = 0; k < options.start_count; ++k) {
      start(options.starts[2 * k], options.starts[2 * k + 1]);
      for (int step = 0; step < options.steps; ++step) sum(), refit();
      if (k == 0) best_gain = gain, best_scale = scale, best_minimum = minimum;
      const BlockLanes before = best_gain;
      take(gain, before, scale, best_scale), take(gain, before, minimum, best_minimum);
      take(gain, before, gain, best_gain);
    }
    scale = best_scale, minimum = best_minimum;
    for (int step = 0; step < options.more; ++step) sum(), refit();
  }

  // Scales of blocks that are one sub-block.
  void settle_halves() {
    d = scale;
    for (size_t i = 0; i < kLanes; ++i) m[i] = 0.0f - minimum[i], whole[i] = 1.0f, least[i] = 0.0f;
    to_half(d), to_half(m);
    for (size_t i = 0; i < kLanes; ++i) scale[i] = d[i], minimum[i] = 0.0f - m[i];
  }

  // Whole numbers, round after round: the best of each block stays.
  void settle_whole() {
    first_whole();
    multiply();
    if (options.rounds == 0) return;
    BlockLanes best[4], best_total{};
    const BlockLanes* const now[4] = {&d, &m, &whole, &least};
    for (int round = 0; round <= options.rounds; ++round) {
      if (round > 0) step_whole(), refit_blocks(), multiply();
      sum(), weigh();
      if (round > options.rounds - options.searches) search();
      BlockLanes total = gain;
      add_over_blocks(total);
      const BlockLanes before = best_total;
      for (size_t k = 0; k < 4; ++k) {
        if (round == 0) best[k] = *now[k];
        take(total, before, *now[k], best[k]);
      }
      if (round == 0) best_total = total;
      take(total, before, total, best_total);
    }
    d = best[0], m = best[1], whole = best[2], least = best[3];
    multiply();
  }

 private:
  BlockSums sums;
  BlockLanes gain{};

  // Lanes of `from` that gain more take the place of `to`'s.
  HQQ_INLINE static void take(const BlockLanes& gained, const BlockLanes& before, const BlockLanes& from,
                              BlockLanes& to) {
    for (size_t i = 0; i < kLanes; ++i) to[i] = gained[i] > before[i] ? from[i] : to[i];
  }

  HQQ_INLINE void sum() { sum_codes<V>(strip, range, scale, minimum, sums); }

  HQQ_NOINLINE void start(float first, float second) {
    const bool held = type.meta != BlockMeta::none;  // minima may not be negative
    if (!type.minima) {
      const float end = range.curved ? static_cast<float>(kCurve[0]) : range.low;
      for (size_t i = 0; i < kLanes; ++i) {
        const float top = -known.least[i] > known.most[i] ? -known.least[i] : known.most[i];
        scale[i] = top * first / end, minimum[i] = 0.0f;
      }
      return;
    }
    for (size_t i = 0; i < kLanes; ++i) {
      const float low = !held || known.least[i] < 0.0f ? known.least[i] : 0.0f;
      const float high = known.most[i] > low ? known.most[i] : low;
      const float width = high - low;
      const float from = low + width * first, to = high - width * second;
      const float under = held && from > 0.0f ? 0.0f : from;
      scale[i] = (to - under) / range.high;
      minimum[i] = 0.0f - under;
    }
  }

  // Scale and minimum that fit the codes best, and their gain. In loops without branches, over arrays of its own:
  // compilers make vectors of them.
  HQQ_NOINLINE void refit() {
    const BlockLanes qq = sums.squares, qx = sums.products, before = scale;
    BlockLanes alone, some;
    for (size_t i = 0; i < kLanes; ++i) some[i] = qq[i] > 0.0f ? qq[i] : 1.0f;
    for (size_t i = 0; i < kLanes; ++i) alone[i] = qx[i] / some[i];
    if (!type.minima) {
      BlockLanes s;
      for (size_t i = 0; i < kLanes; ++i) s[i] = qq[i] > 0.0f ? alone[i] : before[i];
      for (size_t i = 0; i < kLanes; ++i) gain[i] = s[i] * (2.0f * qx[i] - s[i] * qq[i]);
      scale = s;
      return;
    }
    const BlockLanes n = known.count, x = known.sum, inv_n = known.inv_count, q = sums.codes, lowest = minimum;
    const float floor = type.meta != BlockMeta::none ? 0.0f : -std::numeric_limits<float>::infinity();
    BlockLanes mean, a, b, s, to, least_a;
    for (size_t i = 0; i < kLanes; ++i) {
      mean[i] = q[i] * inv_n[i];
      a[i] = qq[i] - mean[i] * q[i];
      b[i] = qx[i] - mean[i] * x[i];
      least_a[i] = 1e-6f * qq[i];
    }
    for (size_t i = 0; i < kLanes; ++i) some[i] = a[i] > least_a[i] ? a[i] : 1.0f;
    for (size_t i = 0; i < kLanes; ++i) s[i] = b[i] / some[i];
    for (size_t i = 0; i < kLanes; ++i) to[i] = s[i] * mean[i] - x[i] * inv_n[i];
    for (size_t i = 0; i < kLanes; ++i) s[i] = to[i] < floor ? alone[i] : s[i];
    for (size_t i = 0; i < kLanes; ++i) to[i] = to[i] < floor ? 0.0f : to[i];
    for (size_t i = 0; i < kLanes; ++i) s[i] = a[i] > least_a[i] ? s[i] : before[i];
    for (size_t i = 0; i < kLanes; ++i) to[i] = a[i] > least_a[i] ? to[i] : lowest[i];
    for (size_t i = 0; i < kLanes; ++i) gain[i] = gain_of(s[i], to[i], n[i], x[i], q[i], qq[i], qx[i]);
    scale = s, minimum = to;
  }

  HQQ_INLINE static float gain_of(float s, float b, float n, float x, float q, float qq, float qx) {
    return s * ((2.0f * qx - s * qq) + 2.0f * b * q) - b * (2.0f * x + b * n);
  }

  HQQ_INLINE void weigh() {
    for (size_t i = 0; i < kLanes; ++i)
      gain[i] =
          gain_of(scale[i], minimum[i], known.count[i], known.sum[i], sums.codes[i], sums.squares[i], sums.products[i]);
  }

  static void to_half(BlockLanes& lanes) { V::store(lanes.lane, rounded<V, Float16>(V::load(lanes.lane))); }

  HQQ_INLINE static float within(float value, float low, float high) {
    const float above = value > low ? value : low;
    const float inside = above < high ? above : high;
    return (inside + kRoundingBlocks) - kRoundingBlocks;
  }

  // d and m of blocks, and the whole scales and minima of their sub-blocks, that come nearest
  HQQ_NOINLINE void first_whole() {
    const size_t subs = type.subs();
    const float low = type.meta_low, high = type.meta_high;
    for (size_t first = 0; first < kLanes; first += subs) {
      float top = 0.0f, deepest = 0.0f;
      for (size_t i = first; i < first + subs; ++i) {
        const float size = scale[i] < 0.0f ? -scale[i] : scale[i];
        if (size > (top < 0.0f ? -top : top)) top = scale[i];
        if (minimum[i] > deepest) deepest = minimum[i];
      }
      for (size_t i = first; i < first + subs; ++i) {
        d[i] = top / (type.minima ? high : low);
        m[i] = deepest / high;
      }
    }
    to_half(d), to_half(m);
    const BlockLanes inv_d = inverse_of(d), inv_m = inverse_of(m);
    for (size_t i = 0; i < kLanes; ++i) {
      whole[i] = within(scale[i] * inv_d[i], low, high);
      least[i] = within(minimum[i] * inv_m[i], 0.0f, high);
    }
  }

  // Whole minima beside their own, with the whole scales that are best for the codes.
  HQQ_NOINLINE void step_whole() {
    const float low = type.meta_low, high = type.meta_high;
    BlockLanes best_gain, best_whole = whole, best_least = least, inverse;
    for (size_t i = 0; i < kLanes; ++i) inverse[i] = d[i] * sums.squares[i];
    inverse = inverse_of(inverse);
    best_gain = gain;
    const float reach = type.minima ? 1.0f : 0.0f;
    for (float offset = -reach; offset <= reach; offset += 1.0f) {
      for (size_t i = 0; i < kLanes; ++i) {
        const float aside = least[i] + offset;
        const float at = aside >= 0.0f && aside <= high ? aside : least[i];
        const float b = m[i] * at;
        const float to = within((sums.products[i] + b * sums.codes[i]) * inverse[i], low, high);
        const float s = d[i] * to;
        const float value =
            gain_of(s, b, known.count[i], known.sum[i], sums.codes[i], sums.squares[i], sums.products[i]);
        const bool better = value > best_gain[i];
        best_gain[i] = better ? value : best_gain[i];
        best_whole[i] = better ? to : best_whole[i];
        best_least[i] = better ? at : best_least[i];
      }
    }
    whole = best_whole, least = best_least;
  }

  // v[i] = v[i] + v[i ^ Width]
  template <size_t Width>
  HQQ_INLINE static void add_across(BlockLanes& v) {
    const BlockLanes from = v;
    for (size_t first = 0; first < kLanes; first += 2 * Width)
      for (size_t i = first; i < first + Width; ++i) v[i] = v[i + Width] = from[i] + from[i + Width];
  }

  // Sums over the sub-blocks of each block, in the place of every one of them.
  HQQ_NOINLINE void add_over_blocks(BlockLanes& v) const {
    if (type.subs() == 16) add_across<8>(v);
    add_across<4>(v), add_across<2>(v), add_across<1>(v);
  }

  // d and m of blocks that are best for codes and whole numbers.
  HQQ_NOINLINE void refit_blocks() {
    BlockLanes ss, sm, mm, sx, mx;
    for (size_t i = 0; i < kLanes; ++i) {
      const float s = whole[i], b = least[i];
      ss[i] = s * s * sums.squares[i], sm[i] = s * b * sums.codes[i], mm[i] = b * b * known.count[i];
      sx[i] = s * sums.products[i], mx[i] = b * known.sum[i];
    }
    add_over_blocks(ss), add_over_blocks(sx);
    if (type.minima) add_over_blocks(sm), add_over_blocks(mm), add_over_blocks(mx);
    const BlockLanes inv_mm = inverse_of(mm);
    for (size_t i = 0; i < kLanes; ++i) {
      const float ratio = sm[i] * inv_mm[i];
      const float square = ss[i] - ratio * sm[i];
      const bool fits = square > 1e-6f * ss[i];
      const float a = (sx[i] - ratio * mx[i]) / (fits ? square : 1.0f);
      const float b = (sm[i] * a - mx[i]) * inv_mm[i];
      const bool both = fits && (mm[i] > 0.0f ? a > 0.0f && b > 0.0f : true);
      d[i] = both ? a : d[i];
      m[i] = both && mm[i] > 0.0f ? b : m[i];
    }
    to_half(d), to_half(m);
  }

  // Neighbours of whole scales, then of whole minima, with codes of their own: what is better stays.
  HQQ_NOINLINE void search() {
    BlockSums kept_sums = sums;
    BlockLanes kept_whole = whole, kept_least = least, kept_gain = gain;
    for (int part = 0; part < (type.minima ? 2 : 1); ++part) {
      const BlockLanes center = part == 0 ? kept_whole : kept_least;
      const float low = part == 0 ? type.meta_low : 0.0f, high = type.meta_high;
      for (float offset = -1.0f; offset <= 1.0f; offset += 2.0f) {
        whole = kept_whole, least = kept_least;
        BlockLanes& own = part == 0 ? whole : least;
        for (size_t i = 0; i < kLanes; ++i) {
          const float to = center[i] + offset;
          own[i] = to >= low && to <= high ? to : center[i];
        }
        multiply(), sum(), weigh();
        const BlockLanes now = gain, before = kept_gain;
        take(now, before, whole, kept_whole), take(now, before, least, kept_least);
        take(now, before, gain, kept_gain), take(now, before, sums.codes, kept_sums.codes);
        take(now, before, sums.squares, kept_sums.squares), take(now, before, sums.products, kept_sums.products);
      }
    }
    whole = kept_whole, least = kept_least, sums = kept_sums, gain = kept_gain;
  }

  HQQ_INLINE void multiply() {
    for (size_t i = 0; i < kLanes; ++i) scale[i] = d[i] * whole[i], minimum[i] = m[i] * least[i];
  }
};

}  // namespace hqq::kernels
