#pragma once
#include "range.h"

// The end that all solvers share: codes, and what they cost with scale and zero as they will be stored.
namespace hqq::kernels {

// Codes of the last zero. Errors are summed in levels of the group, so that no weight is too small or too large to be
// squared.
template <class V, size_t Size, bool Clamp>
void finish_group(const float* scaled, size_t size, State now, float stored_scale, float stored_zero, float max_code,
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
  const double level = now.scale < 0 ? -now.scale : now.scale;
  stats->abs_error += static_cast<double>(V::sum(error_f32)) * level;
  stats->squared_error += static_cast<double>(V::sum(square_f32)) * level * level;
  stats->squared_weight += static_cast<double>(V::sum(weight_square_f32)) * level * level;
}

// Writes the block's scales, zeros and codes.
template <class V, size_t Size, bool Weighted>
HQQ_INLINE void finish(Groups<V, Size, Weighted>& groups, const SolveOptions& o, const Block& b, BlockStats* stats) {
  float stored_scale[kMaxBlock] = {}, stored_zero[kMaxBlock] = {};
  for (size_t g = 0; g < b.groups; ++g) {
    b.scale[g] = stored_scale[g] = groups.now[g].scale;
    b.zero[g] = stored_zero[g] = groups.now[g].zero;
  }
  round_as_stored<V>(stored_scale, o.meta_dtype);
  round_as_stored<V>(stored_zero, o.meta_dtype);
  for (size_t g = 0; g < b.groups; ++g) {
    const auto group = groups[g];
    const auto finish_one =
        group.overshoot(o.max_code) < kInside ? &finish_group<V, Size, false> : &finish_group<V, Size, true>;
    finish_one(group.scaled, group.size, group.now, stored_scale[g], stored_zero[g], o.max_code,
               b.codes + g * b.codes_stride, stats);
  }
}

}  // namespace hqq::kernels
