#pragma once
#include "convert.h"

namespace hqq::kernels {

// The first `count` floats from p, and zeros.
template <class V>
HQQ_INLINE typename V::F32 load_first(const float* p, size_t count) {
  float lanes[kLanes] = {};
  copy_lanes<V>(p, count, lanes);
  return V::load(lanes);
}

// `Rows` rows of x by `Outputs` rows of w, in registers. Every product of two rows is summed in the same order,
// whatever the tile: lane by lane along the rows, then across lanes.
template <class V, size_t Rows, size_t Outputs>
HQQ_INLINE void dense_tile(const Dense& d, size_t b, size_t o) {
  typename V::F32 sum[Rows][Outputs];
  for (auto& row : sum)
    for (auto& s : row) s = V::set(0.0f);
  const float* const x = d.x + b * d.x_stride;
  const float* const w = d.w + o * d.w_stride;
  const auto step = [&](const auto& load, size_t i) {
    typename V::F32 w_f32[Outputs];
    for (size_t c = 0; c < Outputs; ++c) w_f32[c] = load(w + c * d.w_stride + i);
    for (size_t r = 0; r < Rows; ++r) {
      const auto x_f32 = load(x + r * d.x_stride + i);
      for (size_t c = 0; c < Outputs; ++c) sum[r][c] = V::fma(x_f32, w_f32[c], sum[r][c]);
    }
  };
  size_t i = 0;
  for (; i + kLanes <= d.count; i += kLanes) step([](const float* p) { return V::load(p); }, i);
  if (const size_t rest = d.count - i; rest > 0) step([rest](const float* p) { return load_first<V>(p, rest); }, i);
  for (size_t r = 0; r < Rows; ++r)
    for (size_t c = 0; c < Outputs; ++c) {
      const float bias = d.bias == nullptr ? 0.0f : d.bias[o + c];
      d.out[(b + r) * d.out_stride + o + c] = V::sum(sum[r][c]) + bias;
    }
}

template <class V, size_t Rows, size_t Outputs>
void dense_rows(const Dense& d, size_t b) {
  size_t o = 0;
  for (; o + Outputs <= d.outputs; o += Outputs) dense_tile<V, Rows, Outputs>(d, b, o);
  for (; o < d.outputs; ++o) dense_tile<V, Rows, 1>(d, b, o);
}

// Tiles as large as the registers allow: 32 of a zmm's width, 16 of a ymm's (a vector takes two), 32 of a q's (four).
template <class V>
void dense(const Dense& d) {
  constexpr size_t kRows = V::kBytes == 64 ? 4 : V::kBytes == 32 ? 3 : 2, kOutputs = V::kBytes == 64 ? 4 : 2;
  constexpr size_t kOutputsOfOne = V::kBytes == 64 ? 8 : 4;
  size_t b = 0;
  for (; b + kRows <= d.batch; b += kRows) dense_rows<V, kRows, kOutputs>(d, b);
  for (; b < d.batch; ++b) dense_rows<V, 1, kOutputsOfOne>(d, b);
}

}  // namespace hqq::kernels
