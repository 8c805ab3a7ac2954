#pragma once
#include "lanes.h"

// Least squares inside a block type's own storage: first scale and minimum of each sub-block as real numbers, then,
// round after round, whole multiples of the block's two, their neighbours, and these two anew. All but sums over
// weights is computed in double, in the order that is written: lib/backend/js/blocks/encode.ts does the same.
namespace hqq::kernels {

inline constexpr float kRoundingBlocks = 12582912.0f;  // adding and taking away 1.5 * 2^23 leaves a whole number

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

  HQQ_NOINLINE void start(float share) {
    for (size_t i = 0; i < kLanes; ++i) {
      if (type.minima) {
        const float low = type.meta == BlockMeta::none || known.least[i] < 0.0f ? known.least[i] : 0.0f;
        const float high = known.most[i] > low ? known.most[i] : low;
        const float width = (high - low) * share;
        scale[i] = width / range.high;
        // About the middle, but where 0 ends the range
        minimum[i] = type.meta != BlockMeta::none && low == 0.0f ? 0.0f : (width - (high + low)) * 0.5f;
        if (type.meta != BlockMeta::none && minimum[i] < 0.0f) minimum[i] = 0.0f;
      } else {
        const float top = -known.least[i] > known.most[i] ? known.least[i] : known.most[i];
        scale[i] = top * share / (range.curved ? static_cast<float>(kCurve[0]) : range.low);
        minimum[i] = 0.0f;
      }
    }
  }

  // Scale and minimum that fit the codes best.
  HQQ_NOINLINE void refit(const BlockSums& sums) {
    for (size_t i = 0; i < kLanes; ++i) {
      const double n = known.count[i], x = known.sum[i];
      const double q = sums.codes[i], qq = sums.squares[i], qx = sums.products[i];
      if (!type.minima) {
        if (qq > 0.0) scale[i] = static_cast<float>(qx / qq);
        continue;
      }
      const double det = n * qq - q * q;
      if (!(det > 0.0)) continue;
      double s = (n * qx - q * x) / det;
      double b = (s * q - x) / n;
      if (type.meta != BlockMeta::none && b < 0.0) b = 0.0, s = qx / qq;
      scale[i] = static_cast<float>(s), minimum[i] = static_cast<float>(b);
    }
  }

  // The best of some steps from some starts.
  void fit() {
    BlockLanes best_scale{}, best_minimum{}, cost;
    for (size_t k = 0; k < options.start_count; ++k) {
      start(options.starts[k]);
      for (int step = 0; step < options.iterations; ++step) {
        if (step > 0) refit(sums_);
        try_codes<V>(strip, range, scale, minimum, sums_);
        for (size_t i = 0; i < kLanes; ++i) {
          const bool better = (k == 0 && step == 0) || sums_.error[i] < cost[i];
          cost[i] = better ? sums_.error[i] : cost[i];
          best_scale[i] = better ? scale[i] : best_scale[i];
          best_minimum[i] = better ? minimum[i] : best_minimum[i];
        }
      }
    }
    scale = best_scale, minimum = best_minimum;
  }

  static void to_half(BlockLanes& lanes) { V::store(lanes.lane, rounded<V, Float16>(V::load(lanes.lane))); }

  static float whole_of(float value, float unit, float low, float high) {
    const float ratio = unit != 0.0f ? value / unit : 0.0f;
    const float above = ratio > low ? ratio : low;
    const float within = above < high ? above : high;
    return (within + kRoundingBlocks) - kRoundingBlocks;
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
    for (size_t i = 0; i < kLanes; ++i) {
      whole[i] = whole_of(scale[i], d[i], low, high);
      least[i] = type.minima ? whole_of(minimum[i], m[i], 0.0f, high) : 0.0f;
    }
  }

  // The neighbours of whole scales and minima that are best for the codes.
  HQQ_NOINLINE void step_whole() {
    const double low = type.meta_low, high = type.meta_high;
    for (size_t i = 0; i < kLanes; ++i) {
      const double n = known.count[i], x = known.sum[i], unit = d[i], depth = m[i];
      const double q = sums_.codes[i], qq = sums_.squares[i], qx = sums_.products[i];
      const double scale_at = whole[i], minimum_at = least[i];
      const auto cost_of = [&](double at, double under) {
        const double a = unit * at, b = depth * under;
        return a * (a * qq - 2.0 * qx - 2.0 * b * q) + b * (b * n + 2.0 * x);
      };
      double best = cost_of(scale_at, minimum_at), best_scale = scale_at, best_minimum = minimum_at;
      const double reach = type.minima ? 1.0 : 0.0;
      for (double j = -reach; j <= reach; j += 1.0) {
        for (double k = -1.0; k <= 1.0; k += 1.0) {
          const double at = scale_at + k, under = minimum_at + j;
          const bool inside = at >= low && at <= high && under >= 0.0 && under <= high;
          const double cost = cost_of(at, under);
          const bool better = inside && cost < best;
          best = better ? cost : best;
          best_scale = better ? at : best_scale;
          best_minimum = better ? under : best_minimum;
        }
      }
      whole[i] = static_cast<float>(best_scale), least[i] = static_cast<float>(best_minimum);
    }
  }

  // d and m of blocks that are best for codes and whole numbers.
  HQQ_NOINLINE void refit_blocks() {
    const size_t subs = type.subs();
    for (size_t first = 0; first < kLanes; first += subs) {
      double ss = 0.0, sm = 0.0, mm = 0.0, sx = 0.0, mx = 0.0;
      for (size_t i = first; i < first + subs; ++i) {
        const double s = whole[i], b = least[i];
        ss += s * s * static_cast<double>(sums_.squares[i]);
        sm += s * b * static_cast<double>(sums_.codes[i]);
        mm += b * b * static_cast<double>(known.count[i]);
        sx += s * static_cast<double>(sums_.products[i]);
        mx += b * static_cast<double>(known.sum[i]);
      }
      double to_d = d[first], to_m = m[first];
      const double det = ss * mm - sm * sm;
      if (mm > 0.0 && det > 0.0) {
        const double a = (sx * mm - mx * sm) / det, b = (sm * sx - ss * mx) / det;
        if (a > 0.0 && b > 0.0) to_d = a, to_m = b;
      } else if (!(mm > 0.0) && ss > 0.0) {
        to_d = sx / ss;
      }
      for (size_t i = first; i < first + subs; ++i) d[i] = static_cast<float>(to_d), m[i] = static_cast<float>(to_m);
    }
    to_half(d), to_half(m);
  }

  // Neighbours of whole scales, then of whole minima, with codes of their own: what is better stays.
  HQQ_NOINLINE void search() {
    BlockSums known_sums = sums_;
    BlockLanes kept_whole = whole, kept_least = least;
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
        multiply();
        try_codes<V>(strip, range, scale, minimum, sums_);
        for (size_t i = 0; i < kLanes; ++i) {
          const bool better = sums_.error[i] < known_sums.error[i];
          kept_whole[i] = better ? whole[i] : kept_whole[i];
          kept_least[i] = better ? least[i] : kept_least[i];
          known_sums.error[i] = better ? sums_.error[i] : known_sums.error[i];
          known_sums.codes[i] = better ? sums_.codes[i] : known_sums.codes[i];
          known_sums.squares[i] = better ? sums_.squares[i] : known_sums.squares[i];
          known_sums.products[i] = better ? sums_.products[i] : known_sums.products[i];
        }
      }
    }
    whole = kept_whole, least = kept_least, sums_ = known_sums;
  }

  void multiply() {
    for (size_t i = 0; i < kLanes; ++i) scale[i] = d[i] * whole[i], minimum[i] = m[i] * least[i];
  }

  // Whole numbers, round after round: the best of each block stays.
  void settle_whole() {
    const size_t subs = type.subs();
    first_whole();
    BlockLanes best[4] = {d, m, whole, least};
    double cost[kLanes];
    for (int round = 0; round <= options.rounds; ++round) {
      if (round > 0) step_whole(), refit_blocks();
      multiply();
      try_codes<V>(strip, range, scale, minimum, sums_);
      search();
      for (size_t first = 0; first < kLanes; first += subs) {
        double total = 0.0;
        for (size_t i = first; i < first + subs; ++i) total += static_cast<double>(sums_.error[i]);
        if (round > 0 && !(total < cost[first])) continue;
        cost[first] = total;
        for (size_t i = first; i < first + subs; ++i)
          best[0][i] = d[i], best[1][i] = m[i], best[2][i] = whole[i], best[3][i] = least[i];
      }
    }
    d = best[0], m = best[1], whole = best[2], least = best[3];
    multiply();
  }

  // Scales of blocks that are one sub-block.
  void settle_halves() {
    d = scale;
    for (size_t i = 0; i < kLanes; ++i) m[i] = 0.0f - minimum[i], whole[i] = 1.0f, least[i] = 0.0f;
    to_half(d), to_half(m);
    for (size_t i = 0; i < kLanes; ++i) scale[i] = d[i], minimum[i] = 0.0f - m[i];
  }

  BlockSums sums_;
};

// Encodes as many blocks as sixteen sub-blocks are: [kLanes * sub] weights, which are finite.
template <class V>
void encode_blocks(const BlockType& type, const BlockOptions& options, const float* weights, const float* importance,
                   BlockParts* blocks) {
  constexpr size_t kMostSub = 32;
  alignas(64) float turned[kMostSub * kLanes], turned_importance[kMostSub * kLanes];
  alignas(64) uint8_t lanes[kMostSub * kLanes], codes[kMostSub * kLanes];
  const size_t sub = type.sub, subs = type.subs();
  const auto turn = [&](const float* from, float* to) {
    for (size_t i = 0; i < sub; i += kLanes)
      V::transpose16(reinterpret_cast<const uint32_t*>(from + i), sub, reinterpret_cast<uint32_t*>(to + i * kLanes),
                     kLanes);
  };
  turn(weights, turned);
  if (importance != nullptr) turn(importance, turned_importance);
  BlockFit<V> fit{type,
                  options,
                  {turned, importance != nullptr ? turned_importance : nullptr, sub},
                  {static_cast<float>(type.low), static_cast<float>(type.high), type.curved},
                  {},
                  {},
                  {},
                  {},
                  {},
                  {},
                  {},
                  {}};
  know_lanes<V>(fit.strip, fit.known);
  fit.fit();
  if (type.meta == BlockMeta::none)
    fit.settle_halves();
  else
    fit.settle_whole();
  // Codes that are signed bytes are stored from 128 on, and turned back.
  const bool bytes = type.codes[0].bits == 8;
  try_codes<V>(fit.strip, fit.range, fit.scale, fit.minimum, fit.sums_, lanes, bytes ? 128.0f : type.bias);
  for (size_t i = 0; i < sub; i += kLanes) V::transpose16(lanes + i * kLanes, kLanes, codes + i, sub);
  uint16_t d[kLanes], m[kLanes];
  V::store_f16(d, V::load(fit.d.lane)), V::store_f16(m, V::load(fit.m.lane));
  for (size_t first = 0; first < kLanes; first += subs, ++blocks) {
    BlockParts& parts = *blocks;
    for (size_t i = 0; i < type.weights; ++i)
      parts.codes[i] = static_cast<uint8_t>(codes[first * sub + i] ^ (bytes ? 128 : 0));
    for (size_t i = 0; i < subs; ++i) {
      parts.metas[i] = static_cast<int>(fit.whole[first + i]);
      parts.metas[subs + i] = static_cast<int>(fit.least[first + i]);
    }
    parts.d = d[first], parts.m = m[first];
  }
}

}  // namespace hqq::kernels
