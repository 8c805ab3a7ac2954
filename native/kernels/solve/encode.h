#pragma once
#include "finish.h"

// No solver: scale and zero are given, and each code is the nearest.
namespace hqq::kernels {

// A scale may be of either sign. One that is zero, or as good as that, stands for zeros: errors are then counted in
// units of the weights.
HQQ_INLINE State given(float scale, float zero) {
  const float magnitude = scale < 0 ? -scale : scale;
  if (!(magnitude >= 0x1p-126f)) return {1.0f, 1.0f, zero};
  return {1.0f / scale, magnitude, zero};
}

template <class V, size_t Size>
void encode_block_of(const SolveOptions& o, const Block& b, BlockStats* stats) {
  Groups<V, Size, false> groups(b);
  for (size_t g = 0; g < b.groups; ++g) groups.now[g] = given(b.scale[g], b.zero[g]);
  groups.measure();
  groups.scale_weights();
  Costs<V> costs;
  for (size_t g = 0; g < b.groups; ++g) {
    const auto group = groups[g];
    const bool inside = group.now.inv_scale > 0 && group.overshoot(o.max_code) < kInside;
    const auto finish_one = inside ? &finish_group<V, Size, false> : &finish_group<V, Size, true>;
    finish_one(group.scaled, group.size, group.now, b.scale[g], b.zero[g], o.max_code, b.codes + g * b.codes_stride,
               costs, g, b.ahead);
  }
  costs.add_to(stats, groups.now, b.groups);
}

// Writes codes of the block's scales and zeros, which it reads.
template <class V>
void encode_block(const SolveOptions& options, const Block& block, BlockStats* stats) {
  switch (block.size) {
    case 32: return encode_block_of<V, 32>(options, block, stats);
    case 64: return encode_block_of<V, 64>(options, block, stats);
    case 128: return encode_block_of<V, 128>(options, block, stats);
    default: return encode_block_of<V, 0>(options, block, stats);
  }
}

}  // namespace hqq::kernels
