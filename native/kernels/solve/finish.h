#pragma once
#include "range.h"

// The end that all solvers share: codes, and what they cost with scale and zero as they will be stored.
namespace hqq::kernels {

// What the groups of a block cost, in levels of each, so that no weight is too small or too large to be squared: sums
// of each lane.
template <class V>
struct Costs {
  float error[kMaxBlock][kLanes], square[kMaxBlock][kLanes], weight_square[kMaxBlock][kLanes];

  // Adds up what `count` groups cost, in their order.
  HQQ_NOINLINE void add_to(BlockStats* stats, const State* now, size_t count) const {
    float errors[kMaxBlock], squares[kMaxBlock], weight_squares[kMaxBlock];
    add_up(error, count, errors), add_up(square, count, squares), add_up(weight_square, count, weight_squares);
    for (size_t g = 0; g < count; ++g) {
      const double level = now[g].scale < 0 ? -now[g].scale : now[g].scale;
      stats->abs_error += static_cast<double>(errors[g]) * level;
      stats->squared_error += static_cast<double>(squares[g]) * level * level;
      stats->squared_weight += static_cast<double>(weight_squares[g]) * level * level;
    }
  }

 private:
  using Rows = float[kMaxBlock][kLanes];
  HQQ_INLINE static void add_up(const Rows& rows, size_t count, float (&to)[kMaxBlock]) {
    size_t g = 0;
    for (; g + kTogether <= count; g += kTogether)
      V::sum_four(V::load(rows[g]), V::load(rows[g + 1]), V::load(rows[g + 2]), V::load(rows[g + 3]), to + g);
    for (; g < count; ++g) to[g] = V::sum(V::load(rows[g]));
  }
};

// Codes of the last zero, and what they cost.
template <class V, size_t Size, bool Clamp>
void finish_group(const float* scaled, size_t size, State now, float stored_scale, float stored_zero, float max_code,
                  uint8_t* codes, Costs<V>& costs, size_t g, const Ahead& ahead) {
  ask<V>(ahead, g, 1);
  const auto zero_f32 = V::set(now.zero), max_f32 = V::set(max_code);
  const auto stored_zero_f32 = V::set(stored_zero), stored_levels_f32 = V::set(stored_scale * now.inv_scale);
  auto error_f32 = V::set(0.0f), square_f32 = V::set(0.0f), weight_square_f32 = V::set(0.0f);
  over_group<V, Size, false>(size, [&](size_t i, size_t lanes) HQQ_INLINE_LAMBDA {
    const auto scaled_f32 = V::load(scaled + i);
    auto place_f32 = V::add(scaled_f32, zero_f32);
    if constexpr (Clamp) place_f32 = V::min(V::max(place_f32, V::set(0.0f)), max_f32);
    const auto code_u32 = V::rounded_words(place_f32);
    V::store_words_u8(codes + i, code_u32);
    const auto code_f32 = V::to_f32(code_u32);
    const auto restored_f32 = V::mul(V::sub(code_f32, stored_zero_f32), stored_levels_f32);
    const auto kept_f32 = keep<V>(scaled_f32, lanes), levels_f32 = keep<V>(V::sub(scaled_f32, restored_f32), lanes);
    error_f32 = V::add(error_f32, V::abs(levels_f32));
    square_f32 = V::add(square_f32, V::mul(levels_f32, levels_f32));
    weight_square_f32 = V::add(weight_square_f32, V::mul(kept_f32, kept_f32));
  });
  V::store(costs.error[g], error_f32), V::store(costs.square[g], square_f32);
  V::store(costs.weight_square[g], weight_square_f32);
}

// Writes the block's scales, zeros and codes.
template <class V, size_t Size, bool Weighted>
HQQ_NOINLINE void finish(Groups<V, Size, Weighted>& groups, const SolveOptions& o, const Block& b, BlockStats* stats) {
  float stored_scale[kMaxBlock] = {}, stored_zero[kMaxBlock] = {};
  for (size_t g = 0; g < b.groups; ++g) {
    b.scale[g] = stored_scale[g] = groups.now[g].scale;
    b.zero[g] = stored_zero[g] = groups.now[g].zero;
  }
  round_as_stored<V>(stored_scale, o.meta_dtype);
  round_as_stored<V>(stored_zero, o.meta_dtype);
  Costs<V> costs;
  for (size_t g = 0; g < b.groups; ++g) {
    const auto group = groups[g];
    const auto finish_one =
        group.overshoot(o.max_code) < kInside ? &finish_group<V, Size, false> : &finish_group<V, Size, true>;
    finish_one(group.scaled, group.size, group.now, stored_scale[g], stored_zero[g], o.max_code,
               b.codes + g * b.codes_stride, costs, g, b.ahead);
  }
  costs.add_to(stats, groups.now, b.groups);
}

}  // namespace hqq::kernels
