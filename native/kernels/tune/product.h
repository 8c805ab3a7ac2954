#pragma once
#include <cstring>

#include "../convert.h"
#include "table.h"

namespace hqq::kernels {

// Sums of a tile, in registers: 24 of a zmm's width, 12 of a ymm's (a vector takes two), 24 of a q's (four).
template <class V>
struct Tile {
  static constexpr size_t kVectors = V::kBytes == 64 ? 2 : 1;
  static constexpr size_t kRows = V::kBytes == 64 ? 12 : V::kTileRows;
  static constexpr size_t kCols = kVectors * kLanes;
  static_assert(kLeftRows % kRows == 0 && kRightCols % kCols == 0);
};

// The rows of a term, a tile's together; what lies beyond the last is 0.
template <class V, class Word>
HQQ_INLINE void pack_rows(const Word* from, size_t rows, size_t terms, float* to) {
  constexpr size_t kRows = Tile<V>::kRows;
  size_t r = 0;
  for (; r + kRows <= rows; r += kRows) std::memcpy(to + r * terms, from + r, kRows * sizeof(float));
  if (r == rows) return;
  float last[kRows] = {};
  std::memcpy(last, from + r, (rows - r) * sizeof(float));
  std::memcpy(to + r * terms, last, sizeof(last));
}

template <class V>
void pack_left(const Left& left, float* to) {
  constexpr size_t kRows = Tile<V>::kRows;
  if (left.row == 1) {
    for (size_t k = 0; k < left.terms; ++k)
      pack_rows<V>(left.values + k * left.term, left.rows, left.terms, to + k * kRows);
    return;
  }
  // Terms lie side by side: sixteen of them at a time, turned.
  uint32_t words[kLanes * kLeftRows];
  for (size_t k = 0; k < left.terms; k += kLanes) {
    const size_t terms = left.terms - k < kLanes ? left.terms - k : kLanes;
    size_t r = 0;
    if (terms == kLanes)
      for (; r + kLanes <= left.rows; r += kLanes)
        V::transpose16(reinterpret_cast<const uint32_t*>(left.values + r * left.row + k), left.row, words + r,
                       kLeftRows);
    for (; r < left.rows; ++r)
      for (size_t i = 0; i < terms; ++i)
        std::memcpy(words + i * kLeftRows + r, left.values + r * left.row + k + i, sizeof(float));
    for (size_t i = 0; i < terms; ++i) pack_rows<V>(words + i * kLeftRows, left.rows, left.terms, to + (k + i) * kRows);
  }
}

template <class V>
void pack_right(const Right& right, float* to) {
  constexpr size_t kCols = Tile<V>::kCols;
  for (size_t k = 0; k < right.terms; ++k) {
    const float* const from = right.values + k * right.stride;
    float* strip = to + k * kCols;
    size_t c = 0;
    for (; c + kCols <= right.cols; c += kCols, strip += right.terms * kCols)
      for (size_t i = 0; i < kCols; i += kLanes) V::store(strip + i, V::load(from + c + i));
    if (c == right.cols) continue;
    for (size_t i = 0; i < kCols; ++i) strip[i] = c + i < right.cols ? from[c + i] : 0.0f;
  }
}

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

template <class V>
void multiply(const Chain& chain) {
  constexpr size_t kRows = Tile<V>::kRows, kVectors = Tile<V>::kVectors, kCols = Tile<V>::kCols;
  for (size_t r = 0; r < chain.rows; r += kRows) {
    typename V::F32 sum_f32[kRows][kVectors];
    multiply_tile<V>(chain.left + r * chain.terms, chain.right, chain.terms, sum_f32);
    float* const out = chain.out + r * chain.stride;
    if (chain.cols == kCols && r + kRows <= chain.rows) {
      for (size_t i = 0; i < kRows; ++i)
        for (size_t n = 0; n < kVectors; ++n) {
          float* const to = out + i * chain.stride + n * kLanes;
          V::store(to, chain.add ? V::add(V::load(to), sum_f32[i][n]) : sum_f32[i][n]);
        }
      continue;
    }
    const size_t rows = chain.rows - r < kRows ? chain.rows - r : kRows;
    float sums[kRows * kCols];
    for (size_t i = 0; i < kRows; ++i)
      for (size_t n = 0; n < kVectors; ++n) V::store(sums + i * kCols + n * kLanes, sum_f32[i][n]);
    for (size_t i = 0; i < rows; ++i)
      for (size_t c = 0; c < chain.cols; ++c) {
        float& to = out[i * chain.stride + c];
        to = chain.add ? to + sums[i * kCols + c] : sums[i * kCols + c];
      }
  }
}

template <class V>
constexpr ProductKernels make_product() {
  return {.rows = Tile<V>::kRows,
          .cols = Tile<V>::kCols,
          .pack_left = &pack_left<V>,
          .pack_right = &pack_right<V>,
          .multiply = &multiply<V>};
}

}  // namespace hqq::kernels
