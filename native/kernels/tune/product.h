#pragma once
#include "../tile.h"
#include "table.h"

namespace hqq::kernels {

static_assert(kLeftRows % 12 == 0 && kRightCols % (2 * kLanes) == 0);  // of any tile

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

// Rows that are packed together: more would be written along more lines than the first-level cache has room for, since
// those of all tiles lie in a few of its sets.
inline constexpr size_t kPackedRows = 48;
static_assert(kLeftRows % kPackedRows == 0 && kPackedRows % kLanes == 0);

template <class V>
void pack_left(const Left& left, float* to) {
  constexpr size_t kRows = Tile<V>::kRows;
  static_assert(kPackedRows % kRows == 0);
  for (size_t first = 0; first < left.rows; first += kPackedRows, to += kPackedRows * left.terms) {
    const size_t rows = left.rows - first < kPackedRows ? left.rows - first : kPackedRows;
    const float* const from = left.values + first * left.row;
    if (left.row == 1) {
      for (size_t k = 0; k < left.terms; ++k) pack_rows<V>(from + k * left.term, rows, left.terms, to + k * kRows);
      continue;
    }
    // Terms lie side by side: sixteen of them at a time, turned.
    uint32_t words[kLanes * kPackedRows];
    for (size_t k = 0; k < left.terms; k += kLanes) {
      const size_t terms = left.terms - k < kLanes ? left.terms - k : kLanes;
      for (size_t r = 0; r < rows; r += kLanes)
        turn_lanes<V>(from + r * left.row + k, left.row, rows - r, terms, words + r, kPackedRows);
      for (size_t i = 0; i < terms; ++i) pack_rows<V>(words + i * kPackedRows, rows, left.terms, to + (k + i) * kRows);
    }
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
void multiply(const Chain& chain) {
  constexpr size_t kRows = Tile<V>::kRows, kVectors = Tile<V>::kVectors, kCols = Tile<V>::kCols;
  // The columns that follow are asked for meanwhile: so many vectors with each tile.
  const float* next = chain.right + chain.terms * kCols;
  const size_t tiles = (chain.rows + kRows - 1) / kRows;
  const size_t each = (chain.terms * kVectors + tiles - 1) / tiles;
  for (size_t r = 0; r < chain.rows; r += kRows, next += each * kLanes) {
    typename V::F32 sum_f32[kRows][kVectors];
    float* const out = chain.out + r * chain.stride;
    prefetch_tile<V>(out, chain.stride, chain.rows - r);
    for (size_t i = 0; i < each; ++i) simd::prefetch<V>(next + i * kLanes);
    multiply_tile<V>(chain.left + r * chain.terms, chain.right, chain.terms, sum_f32);
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
