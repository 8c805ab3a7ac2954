#pragma once
#include <cmath>

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
    const bool keeps_targets = residual <= r.threshold || overflows(residual, g.facts.magnitude);
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

  // The same steps, of four groups at a time: what a step takes of one number a group is a vector's, and groups wait in
  // each other's shadow. Four of which one moves are stepped once more, which leaves the others where they are: too
  // much work where a group takes many registers.
  template <class Groups>
    requires(!Groups::kWeighted && V::kBytes > kLanes)
  HQQ_NOINLINE static int step_together(Groups& groups, const SolveOptions& o, const Parameters& p) {
    Together<Groups> all(groups, o.max_code);
    uint32_t moving = p.iterations == 0 ? 0 : all.lanes();
    int iteration = 0;
    for (; iteration < p.iterations && moving != 0; ++iteration) {
      const Round r = round(p, iteration);
      const bool near = all.near(r.threshold < r.least_threshold ? r.threshold : r.least_threshold);
      moving = near ? all.step(moving) : all.step_apart(moving, r);
    }
    for (size_t g = 0; g < groups.block.groups; ++g) groups.now[g].zero = all.zero[g];
    return iteration;
  }

 private:
  // The groups of a block, and where their zeros are; `step` of each is what the members' formulas are of.
  //
  // Zeros move little, and a sum of floats never falls where a term rises: what keeps to the codes with a zero a little
  // lower and a little higher does so with all between. Nothing else need be looked at until a zero has left them.
  template <class Groups>
  struct Together {
    static constexpr float kNear = 0.375f;

    Groups& groups;
    const float max_code;
    size_t fours;
    float low[kLanes] = {}, high[kLanes] = {}, scale[kLanes] = {}, slack[kLanes] = {}, zero[kLanes] = {};
    float from[kLanes], to[kLanes], residual[kLanes];
    double targets[kLanes];
    const float* scaled[kLanes];
    float most_residual;  // while zeros are between `from` and `to`; infinite where that does not keep to the codes

    HQQ_INLINE Together(Groups& block, float highest)
        : groups(block), max_code(highest), fours((block.block.groups + kTogether - 1) / kTogether) {
      for (size_t i = 0; i < fours * kTogether; ++i) {
        const Facts& facts = groups.facts[at(i)];
        const State& now = groups.now[at(i)];
        const bool turned = now.inv_scale < 0;
        low[i] = (turned ? facts.most : facts.least) * now.inv_scale;
        high[i] = (turned ? facts.least : facts.most) * now.inv_scale;
        scale[i] = now.scale, slack[i] = facts.magnitude * 1e-6f, zero[i] = now.zero;
        targets[i] = facts.sum_of_scaled, scaled[i] = groups[at(i)].scaled;
      }
      look_around();
    }

    // The last group fills the places of the last four.
    HQQ_INLINE size_t at(size_t i) const { return i < groups.block.groups ? i : groups.block.groups - 1; }
    HQQ_INLINE uint32_t lanes() const { return (uint32_t{1} << fours * kTogether) - 1; }

    // Whether no group reaches beyond the codes, nor has a residual that is more than `threshold`.
    HQQ_INLINE bool near(float threshold) {
      const auto zero_f32 = V::load(zero);
      if (V::differ(V::min(V::max(zero_f32, V::load(from)), V::load(to)), zero_f32) != 0) look_around();
      return most_residual <= threshold;
    }

    // Returns which moved.
    HQQ_INLINE uint32_t step(uint32_t moving) {
      const auto before_f32 = V::load(zero);
      for (size_t i = 0; i < fours * kTogether; i += kTogether)
        if ((moving >> i & 15) != 0) step_four<false>(i, targets + i);
      return V::differ(V::load(zero), before_f32);
    }

    // The same where groups may reach beyond the codes, or have residuals that shrink.
    HQQ_NOINLINE uint32_t step_apart(uint32_t moving, const Round& r) {
      const auto before_f32 = V::load(zero), beyond_f32 = beyond(before_f32);
      V::store(residual, residual_of(beyond_f32));
      const bool inside = V::max_across(beyond_f32) < kInside;
      uint32_t grows = 0;
      for (size_t i = 0; i < fours * kTogether; i += kTogether) {
        if ((moving >> i & 15) == 0) continue;
        double wanted[kTogether];
        for (size_t j = 0; j < kTogether; ++j) {
          wanted[j] = targets[i + j];
          const bool overflow = overflows(residual[i + j], groups.facts[at(i + j)].magnitude);
          if (!(residual[i + j] <= r.threshold) && !overflow) wanted[j] = shrunk(i + j, r);
          grows |= static_cast<uint32_t>(r.beta_grows & !(residual[i + j] <= r.least_threshold)) << (i + j);
        }
        if (inside)
          step_four<false>(i, wanted);
        else
          step_four<true>(i, wanted);
      }
      return V::differ(V::load(zero), before_f32) | grows;
    }

   private:
    template <bool Clamp>
    HQQ_INLINE void step_four(size_t first, const double* wanted) {
      typename V::U32 codes_u32[kTogether];
      HQQ_NO_UNROLL  // or compilers keep what they sum of all four in registers, which are too few
          for (size_t j = 0; j < kTogether; ++j) codes_u32[j] =
              lanes_of_codes<Clamp>(groups[0], scaled[first + j], zero[first + j], max_code);
      const double inv_size = 1.0 / static_cast<double>(static_cast<int64_t>(groups[0].count()));
      V::means_four(codes_u32[0], codes_u32[1], codes_u32[2], codes_u32[3], wanted, inv_size, zero + first);
    }
    double shrunk(size_t i, const Round& r) {
      const auto group = groups[at(i)];
      const State now{group.now.inv_scale, group.now.scale, zero[i]};
      return sum_of_targets(group.weights, group.scaled, group.size, now, max_code, r);
    }
    HQQ_NOINLINE void look_around() {
      constexpr float kLargest = 0x1p15f;  // beyond it a float is too coarse for what is a little lower
      const auto zero_f32 = V::load(zero);
      const auto from_f32 = V::sub(zero_f32, V::set(kNear)), to_f32 = V::add(zero_f32, V::set(kNear));
      const auto beyond_f32 = V::max(beyond(from_f32), beyond(to_f32));
      const bool keeps = V::max_across(beyond_f32) < kInside && V::max_across(V::abs(zero_f32)) <= kLargest;
      V::store(from, from_f32), V::store(to, to_f32);
      most_residual = keeps ? V::max_across(residual_of(beyond_f32)) : INFINITY;
    }
    HQQ_INLINE typename V::F32 beyond(typename V::F32 zero_f32) const {
      const auto below_f32 = V::sub(V::set(0.0f), V::add(V::load(low), zero_f32));
      return V::max(below_f32, V::sub(V::add(V::load(high), zero_f32), V::set(max_code)));
    }
    HQQ_INLINE typename V::F32 residual_of(typename V::F32 beyond_f32) const {
      return V::add(V::mul(V::max(beyond_f32, V::set(kInside)), V::load(scale)), V::load(slack));
    }
  };

  // Whether a residual may be more than a float holds. Nothing is taken away from such weights: infinite errors tell
  // nothing of where the zero should be.
  HQQ_INLINE static bool overflows(float residual, float magnitude) { return !(residual + magnitude < 0x1p127f); }

  // The solver's inner loop. In whole numbers, exact in any order. Without Clamp the caller knows that no code leaves
  // [0, max_code].
  template <bool Clamp, class Group>
  HQQ_INLINE static double sum_of_codes(const Group& g, float max_code) {
    return V::sum_words(lanes_of_codes<Clamp>(g, g.scaled, g.now.zero, max_code));
  }
  template <bool Clamp, class Group>
  HQQ_INLINE static typename V::U32 lanes_of_codes(const Group& g, const float* scaled, float zero, float max_code) {
    const auto zero_f32 = V::set(zero), max_f32 = V::set(max_code);
    auto sum_u32 = V::rounded_words(V::set(0.0f));
    g.over_weights([&](size_t i, size_t lanes) {
      auto place_f32 = V::add(V::load(scaled + i), zero_f32);
      if constexpr (Clamp) place_f32 = V::min(V::max(place_f32, V::set(0.0f)), max_f32);
      sum_u32 = V::add(sum_u32, V::rounded_words(keep<V>(place_f32, lanes)));
    });
    return sum_u32;
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
