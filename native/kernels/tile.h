#pragma once
#include <cstring>

#include "convert.h"

namespace hqq::kernels {

// Sums of a tile, in registers: 24 of a zmm's width, 12 of a ymm's (a vector takes two), 24 of a q's (four).
template <class V>
struct Tile {
  static constexpr size_t kVectors = V::kBytes == 64 ? 2 : 1;
  static constexpr size_t kRows = V::kBytes == 64 ? 12 : V::kTileRows;
  static constexpr size_t kCols = kVectors * kLanes;
};

template <class V>
HQQ_INLINE void multiply_tile(const float* left, const float* right, size_t terms,
                              typename V::F32 (*sum_f32)[Tile<V>::kVectors]) {
  constexpr size_t kRows = Tile<V>::kRows, kVectors = Tile<V>::kVectors;
  for (size_t r = 0; r < kRows; ++r)
    for (size_t n = 0; n < kVectors; ++n) sum_f32[r][n] = V::set(0.0f);
  for (size_t k = 0; k < terms; ++k, left += kRows, right += kVectors * kLanes) {
    typename V::F32 right_f32[kVectors];
    for (size_t n = 0; n < kVectors; ++n) right_f32[n] = V::load(right + n * kLanes);
    for (size_t r = 0; r < kRows; ++r) {
      const auto left_f32 = V::set(left[r]);
      for (size_t n = 0; n < kVectors; ++n) sum_f32[r][n] = V::fma(left_f32, right_f32[n], sum_f32[r][n]);
    }
  }
}

// to[c][r] = from[r][c] of sixteen rows and columns; zeros for those that are not there.
template <class V>
HQQ_INLINE void turn_lanes(const float* from, size_t from_stride, size_t rows, size_t cols, uint32_t* to,
                           size_t to_stride) {
  if (rows >= kLanes && cols >= kLanes)
    return V::transpose16(reinterpret_cast<const uint32_t*>(from), from_stride, to, to_stride);
  uint32_t words[kLanes * kLanes] = {};
  for (size_t r = 0; r < kLanes && r < rows; ++r)
    if (cols >= kLanes)
      std::memcpy(words + r * kLanes, from + r * from_stride, kLanes * sizeof(float));
    else
      std::memcpy(words + r * kLanes, from + r * from_stride, cols * sizeof(float));
  V::transpose16(words, kLanes, to, to_stride);
}

// Asks for where a tile will be written, before its sums are known.
template <class V>
HQQ_INLINE void prefetch_tile(const float* out, size_t stride, size_t rows) {
  for (size_t r = 0; r < Tile<V>::kRows && r < rows; ++r)
    for (size_t n = 0; n < Tile<V>::kVectors; ++n) simd::prefetch<V>(out + r * stride + n * kLanes);
}

}  // namespace hqq::kernels
