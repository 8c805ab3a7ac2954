#pragma once
#include "../simd/math.h"
#include "convert.h"

// The half-quadratic solver, for a block of groups. Source: mobiusml/hqq hqq/core/optimize.py,
// optimize_weights_proximal_legacy (0.2.8).
//
//   codes = clamp(round(w * s + zero), 0, max_code)           s = 1 / scale, found once from min and max
//   e     = shrink(w - (codes - zero) / s)                    Lp shrinkage of the residual
//   zero  = mean(codes - (w - e) * s)                         repeated
//
// The mean is taken as (sum of codes - sum of (w - e) * s) / size. The first sum is exact. The second is the same in
// every iteration where no residual is more than shrinkage takes away, as in all ordinary weights: then an iteration
// only rounds and counts.
//
// Multiply and add stay two rounded operations: the reference does not fuse them, and golden codes depend on it.
namespace hqq::kernels {

// Where a group stands: s, scale = 1 / s, and the zero, which is all that the solver moves.
template <class V>
struct State {
  float inv_scale, scale, zero;

  static State of(float least, float most, const SolverOptions& o) {
    const float inv_scale = o.reference_guards ? reference(least, most, o.max_code) : relative(least, most, o.max_code);
    // 0 - x and x + 0, because the sign of a zero must not depend on how an instruction set orders or rounds -0 and +0.
    float zero = 0.0f - least * inv_scale;
    if (o.round_zero) {
      float lanes[kLanes];
      V::store(lanes, V::round(V::set(zero)));
      zero = lanes[0] + 0.0f;
    }
    return {inv_scale, 1.0f / inv_scale, zero};
  }

 private:
  // The reference's own: ranges up to 1e-4 become one level, and no more than 20,000 levels per unit.
  static float reference(float least, float most, float max_code) {
    const float range = most - least;
    float s = (1.0f / range) * max_code;
    if (range <= 1e-4f) s = 1.0f;
    return s < 2e4f ? s : 2e4f;
  }

  // A group of equal weights is one level: its value. Otherwise |zero| stays within 2^20, where a float still resolves
  // fractions of a level, and s and 1 / s stay finite whatever the weights.
  static float relative(float least, float most, float max_code) {
    if (!(most > least)) return 1.0f;
    const float half_range = most * 0.5f - least * 0.5f;  // the range itself may overflow
    const float s = (0.5f / half_range) * max_code;
    const float magnitude = -least > most ? -least : most;
    const float limit = 1048576.0f / magnitude;
    const float clamped = s < limit ? s : limit;
    const float bounded = clamped < 0x1p120f ? clamped : 0x1p120f;
    return bounded > 0x1p-126f ? bounded : 0x1p-126f;
  }
};

// Calls step(i, lanes) over a group, lanes being kLanes except in a last, partial vector. Size, where it is not 0, is
// the group's size, known to the compiler: the loop over it unrolls and the group stays in registers.
template <class V, size_t Size, class Step>
HQQ_INLINE void over_group(size_t size, Step step) {
  if constexpr (Size != 0) {
    for (size_t i = 0; i < Size; i += kLanes) step(i, kLanes);
  } else {
    const size_t full = size / kLanes * kLanes;
    for (size_t i = 0; i < full; i += kLanes) step(i, kLanes);
    if (full < size) step(full, size - full);
  }
}

template <class V>
HQQ_INLINE typename V::F32 keep(typename V::F32 v, size_t lanes) {
  return lanes == kLanes ? v : V::first(v, lanes);
}

// The nearest code. Without Clamp the caller knows that it lies in [0, max_code].
template <class V, bool Clamp>
HQQ_INLINE typename V::F32 encode(typename V::F32 scaled, typename V::F32 zero, typename V::F32 max_code) {
  const auto place = V::add(scaled, zero);
  if constexpr (!Clamp) return V::round(place);
  return V::round(V::min(V::max(place, V::set(0.0f)), max_code));
}

// The sum of a group's codes: the solver's inner loop. In whole numbers, exact in any order. Without Clamp the caller
// knows that no code leaves [0, max_code].
template <class V, size_t Size, bool Clamp>
HQQ_INLINE double sum_of_codes(const float* scaled, size_t size, float zero, float max_code) {
  const auto zero_f32 = V::set(zero), max_f32 = V::set(max_code);
  auto sum_u32 = V::rounded_words(V::set(0.0f));
  over_group<V, Size>(size, [&](size_t i, size_t lanes) {
    auto place_f32 = V::add(V::load(scaled + i), zero_f32);
    if constexpr (Clamp) place_f32 = V::min(V::max(place_f32, V::set(0.0f)), max_f32);
    sum_u32 = V::add(sum_u32, V::rounded_words(keep<V>(place_f32, lanes)));
  });
  return V::sum_words(sum_u32);
}

// shrink(x) = sign(x) * max(|x| - |x|^(p - 1) / beta, 0)
template <class V>
HQQ_INLINE typename V::F32 shrink(typename V::F32 x, float inv_beta, float lp_norm) {
  const auto magnitude = V::abs(x);
  auto cut = V::set(inv_beta);
  if (lp_norm != 1.0f) {
    const auto normal = V::max(magnitude, V::set(0x1p-126f));  // what is smaller shrinks to zero all the same
    cut = V::mul(cut, simd::pow_positive<V>(normal, lp_norm - 1.0f));
  }
  return V::copysign(V::max(V::sub(magnitude, cut), V::set(0.0f)), x);
}

// The sum of (w - shrink(w - (codes - zero) / s)) * s, where a residual may be more than shrinkage takes away.
template <class V>
double sum_of_targets(const float* weights, const float* scaled, size_t size, State<V> now, const SolverOptions& o,
                      float inv_beta) {
  const auto zero_f32 = V::set(now.zero), inv_scale_f32 = V::set(now.inv_scale), max_f32 = V::set(o.max_code);
  auto sum_f32 = V::set(0.0f);
  over_group<V, 0>(size, [&](size_t i, size_t lanes) {
    const auto weight_f32 = V::load(weights + i);
    const auto code_f32 = encode<V, true>(V::load(scaled + i), zero_f32, max_f32);
    const auto residual_f32 = V::sub(weight_f32, V::div(V::sub(code_f32, zero_f32), inv_scale_f32));
    const auto target_f32 = V::sub(weight_f32, shrink<V>(residual_f32, inv_beta, o.lp_norm));
    sum_f32 = V::add(sum_f32, keep<V>(V::mul(target_f32, inv_scale_f32), lanes));
  });
  return static_cast<double>(V::sum(sum_f32));
}

// What a group's solver knows before it starts. Sums and the zero's update are in double: they are per group, and cost
// nothing beside the weights.
struct Extremes {
  float least, most, magnitude;
  double sum_of_scaled;
};

// Where a group reaches less than half a level beyond the codes, rounding alone keeps to them. (At exactly half a
// level, half to even may go either way.)
inline constexpr float kInside = 0.5f;

// How far the group reaches beyond the codes, in levels: the more of the two ends.
template <class V>
HQQ_INLINE float overshoot(const Extremes& e, State<V> now, float max_code) {
  const float below = -(e.least * now.inv_scale + now.zero), above = (e.most * now.inv_scale + now.zero) - max_code;
  return below > above ? below : above;
}

// values = values, rounded to the type that they will be stored in. kMaxBlock of them: one vector.
template <class V>
void round_as_stored(float* values, DType dtype) {
  static_assert(kMaxBlock == kLanes);
  if (dtype == DType::f16) V::store(values, rounded<V, Float16>(V::load(values)));
  if (dtype == DType::bf16) V::store(values, rounded<V, BFloat16>(V::load(values)));
}

// Codes of the last zero, and what they cost with scale and zero as they will be stored. Errors are summed in levels of
// the group, so that no weight is too small or too large to be squared.
template <class V, size_t Size, bool Clamp>
void finish_group(const float* scaled, size_t size, State<V> now, float stored_scale, float stored_zero, float max_code,
                  uint8_t* codes, BlockStats* stats) {
  const auto zero_f32 = V::set(now.zero), max_f32 = V::set(max_code);
  const auto stored_zero_f32 = V::set(stored_zero), stored_levels_f32 = V::set(stored_scale * now.inv_scale);
  auto error_f32 = V::set(0.0f), square_f32 = V::set(0.0f), weight_square_f32 = V::set(0.0f);
  over_group<V, Size>(size, [&](size_t i, size_t lanes) {
    const auto scaled_f32 = V::load(scaled + i);
    const auto code_f32 = encode<V, Clamp>(scaled_f32, zero_f32, max_f32);
    V::store_u8(codes + i, code_f32);
    const auto restored_f32 = V::mul(V::sub(code_f32, stored_zero_f32), stored_levels_f32);
    const auto kept_f32 = keep<V>(scaled_f32, lanes), levels_f32 = keep<V>(V::sub(scaled_f32, restored_f32), lanes);
    error_f32 = V::add(error_f32, V::abs(levels_f32));
    square_f32 = V::add(square_f32, V::mul(levels_f32, levels_f32));
    weight_square_f32 = V::add(weight_square_f32, V::mul(kept_f32, kept_f32));
  });
  const double level = now.scale;
  stats->abs_error += static_cast<double>(V::sum(error_f32)) * level;
  stats->squared_error += static_cast<double>(V::sum(square_f32)) * level * level;
  stats->squared_weight += static_cast<double>(V::sum(weight_square_f32)) * level * level;
}

template <class V, size_t Size>
void solve_block_of(const SolverOptions& o, const Block& b, BlockStats* stats) {
  const size_t scaled_stride = padded(b.size);
  Extremes extremes[kMaxBlock];
  State<V> now[kMaxBlock];
  for (size_t g = 0; g < b.groups; ++g) {
    const float* weights = b.weights + g * b.stride;
    auto least_f32 = V::load(weights), most_f32 = least_f32;
    over_group<V, Size>(b.size, [&](size_t i, size_t) {
      const auto weight_f32 = V::load(weights + i);
      least_f32 = V::min(least_f32, weight_f32);
      most_f32 = V::max(most_f32, weight_f32);
    });
    const float least = V::min_across(least_f32), most = V::max_across(most_f32);
    extremes[g] = {least, most, -least > most ? -least : most, 0};
  }
  for (size_t g = 0; g < b.groups; ++g) now[g] = State<V>::of(extremes[g].least, extremes[g].most, o);
  for (size_t g = 0; g < b.groups; ++g) {
    const auto inv_scale_f32 = V::set(now[g].inv_scale);
    auto sum_f32 = V::set(0.0f);
    over_group<V, Size>(b.size, [&](size_t i, size_t lanes) {
      const auto scaled_f32 = V::mul(V::load(b.weights + g * b.stride + i), inv_scale_f32);
      V::store(b.scaled + g * scaled_stride + i, scaled_f32);
      sum_f32 = V::add(sum_f32, keep<V>(scaled_f32, lanes));
    });
    extremes[g].sum_of_scaled = static_cast<double>(V::sum(sum_f32));
  }

  // Groups that still move. A zero that an update leaves as it is stays so, and the group is done: the rest of the
  // iterations would change nothing. (With a growing beta only where shrinkage stays zero to the end.)
  uint8_t moving[kMaxBlock];
  size_t count = o.iterations > 0 ? b.groups : 0;
  for (size_t g = 0; g < b.groups; ++g) moving[g] = static_cast<uint8_t>(g);
  const double per_weight = 1.0 / static_cast<double>(static_cast<int64_t>(b.size));
  int iteration = 0;
  for (; iteration < o.iterations && count > 0; ++iteration) {
    const float inv_beta = o.schedule[2 * iteration], threshold = o.schedule[2 * iteration + 1];
    size_t left = 0;
    for (size_t k = 0; k < count; ++k) {
      const uint8_t g = moving[k];
      moving[left] = g;
      const Extremes& e = extremes[g];
      State<V>& state = now[g];
      const float* scaled = b.scaled + g * scaled_stride;
      const float beyond = overshoot<V>(e, state, o.max_code);
      const bool inside = beyond < kInside;
      const double codes = inside ? sum_of_codes<V, Size, false>(scaled, b.size, state.zero, o.max_code)
                                  : sum_of_codes<V, Size, true>(scaled, b.size, state.zero, o.max_code);
      // No residual is larger: half a level, or what clamping cuts off, and the rounding of either.
      const float residual = (inside ? 0.5f : beyond) * state.scale + e.magnitude * 1e-6f;
      const double targets = residual <= threshold
                                 ? e.sum_of_scaled
                                 : sum_of_targets<V>(b.weights + g * b.stride, scaled, b.size, state, o, inv_beta);
      const auto zero = static_cast<float>((codes - targets) * per_weight);
      // Without a branch, which would go wrong once a group.
      left += static_cast<size_t>((zero != state.zero) | !(o.constant_beta | (residual <= o.min_threshold)));
      state.zero = zero;
    }
    count = left;
  }
  stats->iterations = iteration > stats->iterations ? iteration : stats->iterations;

  float stored_scale[kMaxBlock] = {}, stored_zero[kMaxBlock] = {};
  for (size_t g = 0; g < b.groups; ++g) {
    b.scale[g] = stored_scale[g] = now[g].scale;
    b.zero[g] = stored_zero[g] = now[g].zero;
  }
  round_as_stored<V>(stored_scale, o.meta_dtype);
  round_as_stored<V>(stored_zero, o.meta_dtype);
  for (size_t g = 0; g < b.groups; ++g) {
    const auto finish = overshoot<V>(extremes[g], now[g], o.max_code) < kInside ? &finish_group<V, Size, false>
                                                                                : &finish_group<V, Size, true>;
    finish(b.scaled + g * scaled_stride, b.size, now[g], stored_scale[g], stored_zero[g], o.max_code,
           b.codes + g * b.codes_stride, stats);
  }
}

template <class V>
void solve_block(const SolverOptions& options, const Block& block, BlockStats* stats) {
  switch (block.size) {
    case 32: return solve_block_of<V, 32>(options, block, stats);
    case 64: return solve_block_of<V, 64>(options, block, stats);
    case 128: return solve_block_of<V, 128>(options, block, stats);
    default: return solve_block_of<V, 0>(options, block, stats);
  }
}

}  // namespace hqq::kernels
