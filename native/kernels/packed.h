#pragma once
#include <numeric>

#include "tile.h"

namespace hqq::kernels {

// `dense` for many rows, from packed memory, in tiles whose sums stay in registers; to the bit. Each lane's sum of a
// product of two rows is a chain of its own here, whose terms lie together, and the chains of sixteen lanes end in the
// tree of V::sum.

// Lanes in the order in which their chains are added: each with the one that lies half of them apart, then pairs, then
// fours.
constexpr uint8_t kTurnedLanes[kLanes] = {0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15};

// to[tiles][chains][terms of one][Width] from rows of `count` floats, with zeros after the last row and term.
template <class V, size_t Width>
void pack_chains(const float* from, size_t stride, size_t rows, size_t count, float* to) {
  // Rows that are turned together: whole tiles, of whole vectors.
  constexpr size_t kSpan = std::lcm(Width, kLanes);
  const size_t terms = (count + kLanes - 1) / kLanes;
  uint32_t turned[kLanes * kSpan];
  for (size_t first = 0; first < rows; first += kSpan, to += kSpan * kLanes * terms) {
    const size_t some = rows - first < kSpan ? rows - first : kSpan, tiles = (some + Width - 1) / Width;
    for (size_t k = 0; k < terms; ++k) {
      for (size_t r = 0; r < tiles * Width; r += kLanes)
        turn_lanes<V>(from + (first + r) * stride + k * kLanes, stride, some < r ? 0 : some - r, count - k * kLanes,
                      turned + r, kSpan);
      for (size_t c = 0; c < kLanes; ++c)
        for (size_t t = 0; t < tiles; ++t)
          std::memcpy(to + ((t * kLanes + c) * terms + k) * Width, turned + kTurnedLanes[c] * kSpan + t * Width,
                      Width * sizeof(float));
    }
  }
}

template <class V>
void pack_left_chains(const float* from, size_t stride, size_t rows, size_t count, float* to) {
  pack_chains<V, Tile<V>::kRows>(from, stride, rows, count, to);
}

template <class V>
void pack_right_chains(const float* from, size_t stride, size_t rows, size_t count, float* to) {
  pack_chains<V, Tile<V>::kCols>(from, stride, rows, count, to);
}

template <class V>
void dense_packed(const PackedDense& d) {
  constexpr size_t kRows = Tile<V>::kRows, kVectors = Tile<V>::kVectors, kCols = Tile<V>::kCols;
  const size_t terms = (d.count + kLanes - 1) / kLanes;
  for (size_t r = 0; r < d.rows; r += kRows) {
    const float* const left = d.left + r * kLanes * terms;
    prefetch_tile<V>(d.out + r * d.stride, d.stride, d.rows - r);
    // Sums of two, four and eight chains that wait for as many.
    float waiting[4][kRows][kCols];
    typename V::F32 sum_f32[kRows][kVectors];
    for (size_t c = 0; c < kLanes; ++c) {
      multiply_tile<V>(left + c * terms * kRows, d.right + c * terms * kCols, terms, sum_f32);
      size_t level = 0;
      for (; (c >> level & 1) != 0; ++level)
        for (size_t i = 0; i < kRows; ++i)
          for (size_t n = 0; n < kVectors; ++n)
            sum_f32[i][n] = V::add(V::load(waiting[level][i] + n * kLanes), sum_f32[i][n]);
      if (c + 1 == kLanes) break;
      for (size_t i = 0; i < kRows; ++i)
        for (size_t n = 0; n < kVectors; ++n) V::store(waiting[level][i] + n * kLanes, sum_f32[i][n]);
    }
    const size_t rows = d.rows - r < kRows ? d.rows - r : kRows;
    for (size_t i = 0; i < kRows; ++i)
      for (size_t n = 0; n < kVectors; ++n) V::store(waiting[0][i] + n * kLanes, sum_f32[i][n]);
    for (size_t i = 0; i < rows; ++i)
      for (size_t n = 0; n < d.cols; ++n) {
        const float bias = d.bias == nullptr ? 0.0f : d.bias[n];
        d.out[(r + i) * d.stride + n] = waiting[0][i][n] + bias;
      }
  }
}

template <class V>
constexpr PackedDenseKernels make_packed_dense() {
  return {.rows = Tile<V>::kRows,
          .cols = Tile<V>::kCols,
          .pack_left = &pack_left_chains<V>,
          .pack_right = &pack_right_chains<V>,
          .multiply = &dense_packed<V>};
}

}  // namespace hqq::kernels
