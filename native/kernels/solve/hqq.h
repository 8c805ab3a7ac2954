#pragma once
#include "../../simd/math.h"
#include "range.h"

namespace hqq::kernels {

// The half-quadratic solver. Source: mobiusml/hqq hqq/core/optimize.py, optimize_weights_proximal_legacy (0.2.8).
//
//   codes = clamp(round(w * s + zero), 0, max_code)           s = 1 / scale, found once from min and max
//   e     = shrink(w - (codes - zero) / s)                    Lp shrinkage of the residual
//   zero  = mean(codes - (w - e) * s)                         repeated
//
// The mean is taken as (sum of codes - sum of (w - e) * s) / size. The first sum is exact. The second is the same in
// every iteration where no residual is more than shrinkage takes away, as in all ordinary weights: then an iteration
// only rounds and counts. With importance the mean is a weighted one: sum of importance * (codes - (w - e) * s), by the
// sum of importance.
//
// Multiply and add stay two rounded operations: the reference does not fuse them, and golden codes depend on it.
template <class V>
struct Hqq : FromRange {
  static constexpr const char* kName = "hqq";

  // lpNorm, the least threshold, and 1 where beta grows; then for each iteration 1 / beta and its threshold, the
  // residual up to which shrinkage gives zero.
  struct Parameters {
    float lp_norm, least_threshold;
    bool beta_grows;
    const float* schedule;
    int iterations;
  };
  static constexpr size_t kBeforeSchedule = 3;
  static constexpr bool takes(size_t count) {
    return count >= kBeforeSchedule && (count - kBeforeSchedule) % 2 == 0 &&
           (count - kBeforeSchedule) / 2 <= kMaxIterations;
  }
  static Parameters read(const SolveOptions& o) {
    const float* p = o.parameters;
    return {p[0], p[1], p[2] != 0.0f, p + kBeforeSchedule, static_cast<int>((o.parameter_count - kBeforeSchedule) / 2)};
  }
  static int iterations(const Parameters& p) { return p.iterations; }

  struct Round {
    float lp_norm, inv_beta, threshold, least_threshold;
    bool beta_grows;
  };
  HQQ_INLINE static Round round(const Parameters& p, int iteration) {
    return {p.lp_norm, p.schedule[2 * iteration], p.schedule[2 * iteration + 1], p.least_threshold, p.beta_grows};
  }

  // A zero that an update leaves as it is stays so: the rest of the iterations would change nothing. (With a growing
  // beta only where shrinkage stays zero to the end.)
  template <class Group>
  HQQ_INLINE static bool step(const Group& g, const SolveOptions& o, const Round& r) {
    const float beyond = g.overshoot(o.max_code);
    const bool inside = beyond < kInside;
    // No residual is larger: half a level, or what clamping cuts off, and the rounding of either.
    const float residual = (inside ? 0.5f : beyond) * g.now.scale + g.facts.magnitude * 1e-6f;
    const bool keeps_targets = residual <= r.threshold;
    const auto mean = [&]() HQQ_INLINE_LAMBDA {
      const double codes = inside ? sum_of_codes<false>(g, o.max_code) : sum_of_codes<true>(g, o.max_code);
      const double targets =
          keeps_targets ? g.facts.sum_of_scaled : sum_of_targets(g.weights, g.scaled, g.size, g.now, o.max_code, r);
      return (codes - targets) * (1.0 / static_cast<double>(static_cast<int64_t>(g.count())));
    };
    const auto weighted_mean = [&]() HQQ_INLINE_LAMBDA {
      const double sum = keeps_targets ? weighted_sum<false>(g, o.max_code, r) : weighted_sum<true>(g, o.max_code, r);
      return sum / g.facts.sum_of_importance;
    };
    float zero;
    if constexpr (Group::kWeighted)
      zero = static_cast<float>(g.facts.sum_of_importance == 0 ? mean() : weighted_mean());
    else
      zero = static_cast<float>(mean());
    // Without a branch, which would go wrong once a group.
    const bool moves = (zero != g.now.zero) | (r.beta_grows & !(residual <= r.least_threshold));
    g.now.zero = zero;
    return moves;
  }

 private:
  // The solver's inner loop. In whole numbers, exact in any order. Without Clamp the caller knows that no code leaves
  // [0, max_code].
  template <bool Clamp, class Group>
  HQQ_INLINE static double sum_of_codes(const Group& g, float max_code) {
    const auto zero_f32 = V::set(g.now.zero), max_f32 = V::set(max_code);
    auto sum_u32 = V::rounded_words(V::set(0.0f));
    g.over_weights([&](size_t i, size_t lanes) {
      auto place_f32 = V::add(V::load(g.scaled + i), zero_f32);
      if constexpr (Clamp) place_f32 = V::min(V::max(place_f32, V::set(0.0f)), max_f32);
      sum_u32 = V::add(sum_u32, V::rounded_words(keep<V>(place_f32, lanes)));
    });
    return V::sum_words(sum_u32);
  }

  // shrink(x) = sign(x) * max(|x| - |x|^(p - 1) / beta, 0)
  HQQ_INLINE static typename V::F32 shrink(typename V::F32 x, float inv_beta, float lp_norm) {
    const auto magnitude = V::abs(x);
    auto cut = V::set(inv_beta);
    if (lp_norm != 1.0f) {
      const auto normal = V::max(magnitude, V::set(0x1p-126f));  // what is smaller shrinks to zero all the same
      cut = V::mul(cut, simd::pow_positive<V>(normal, lp_norm - 1.0f));
    }
    return V::copysign(V::max(V::sub(magnitude, cut), V::set(0.0f)), x);
  }

  // (w - shrink(w - (code - zero) / s)) * s
  HQQ_INLINE static typename V::F32 target(typename V::F32 weight, typename V::F32 code, State now, Round r) {
    const auto inv_scale_f32 = V::set(now.inv_scale);
    const auto residual_f32 = V::sub(weight, V::div(V::sub(code, V::set(now.zero)), inv_scale_f32));
    return V::mul(V::sub(weight, shrink(residual_f32, r.inv_beta, r.lp_norm)), inv_scale_f32);
  }

  // The sum of targets, where a residual may be more than shrinkage takes away. It is out of the way, and takes no
  // group: one would have to be in memory, all of it, for what nearly never happens.
  HQQ_NOINLINE static double sum_of_targets(const float* weights, const float* scaled, size_t size, State now,
                                            float max_code, Round r) {
    const auto zero_f32 = V::set(now.zero), max_f32 = V::set(max_code);
    auto sum_f32 = V::set(0.0f);
    over_group<V, 0>(size, [&](size_t i, size_t lanes) {
      const auto code_f32 = encode<V, true>(V::load(scaled + i), zero_f32, max_f32);
      const auto target_f32 = target(V::load(weights + i), code_f32, now, r);
      sum_f32 = V::add(sum_f32, keep<V>(target_f32, lanes));
    });
    return static_cast<double>(V::sum(sum_f32));
  }

  // The sum of importance * (code - target). A difference is as large as the zero, whatever the code.
  template <bool Shrinks, class Group>
  HQQ_NOINLINE static double weighted_sum(const Group& g, float max_code, Round r) {
    const auto zero_f32 = V::set(g.now.zero), max_f32 = V::set(max_code);
    auto sum_f32 = V::set(0.0f);
    g.over_weights([&](size_t i, size_t lanes) {
      auto target_f32 = V::load(g.scaled + i);
      const auto code_f32 = encode<V, true>(target_f32, zero_f32, max_f32);
      if constexpr (Shrinks) target_f32 = target(V::load(g.weights + i), code_f32, g.now, r);
      const auto part_f32 = V::mul(V::load(g.importance + i), V::sub(code_f32, target_f32));
      sum_f32 = V::add(sum_f32, keep<V>(part_f32, lanes));
    });
    return static_cast<double>(V::sum(sum_f32));
  }
};

}  // namespace hqq::kernels
