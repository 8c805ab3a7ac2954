#pragma once
#include "layers.h"

// Attention of the heads that share their keys and values: each of these is read once for all of the heads.
namespace hqq::kernels {

// Keys and values that are on their way from memory while others are at work. Processors look ahead by themselves, but not for
// what lies a row apart: without it, attention to a thousand positions takes half as long again.
inline constexpr size_t kRowsAhead = 16;

// Asks for the floats at p + offset. They may lie past the end of the array; nothing is read.
template <class V>
HQQ_INLINE void prefetch_floats(const float* p, size_t offset) {
  V::prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(p) + offset * sizeof(float)));
}

// Heads whose sums are in registers together, of `heads` that are left. Two and two are faster than three and one.
template <class V>
constexpr size_t heads_at_once(size_t heads) {
  constexpr size_t kMost = V::kBytes == 64 ? 4 : 3;
  return heads <= kMost ? heads : heads == kMost + 1 ? 2 : kMost;
}

template <size_t Count>
struct Heads {
  static constexpr size_t kCount = Count;
};

// Calls body(Heads<n>, first) for heads `first` to `first + n`, until all of them were among these.
template <class V, class Body>
HQQ_INLINE void for_heads(size_t heads, const Body& body) {
  for (size_t h = 0; h < heads;) {
    const size_t count = heads_at_once<V>(heads - h);
    switch (count) {
      case 1: body(Heads<1>{}, h); break;
      case 2: body(Heads<2>{}, h); break;
      case 3: body(Heads<3>{}, h); break;
      default: body(Heads<4>{}, h);
    }
    h += count;
  }
}

// The products of one key and `Heads` queries, lane by lane: across lanes they are yet to be added.
template <class V, size_t Heads>
HQQ_INLINE void score_lanes(const Scores& s, size_t h, size_t key, typename V::F32 (&sum)[Heads]) {
  const float* const q = s.queries + h * s.width;
  const float* const k = s.keys + key * s.stride;
  for (auto& of_head : sum) of_head = V::set(0.0f);
  for_each_vector<V>(s.width, [&](auto memory, size_t i) {
    prefetch_floats<V>(k + i, kRowsAhead * s.stride);
    const auto k_f32 = memory.load(k + i);
    for (size_t n = 0; n < Heads; ++n) sum[n] = V::fma(memory.load(q + n * s.width + i), k_f32, sum[n]);
  });
}

template <class V, size_t Heads>
void scores_of(const Scores& s, size_t h) {
  constexpr size_t kKeys = 4;  // whose lanes are added together
  float* const out = s.scores + h * s.scores_stride;
  size_t j = 0;
  for (; j + kKeys <= s.count; j += kKeys) {
    alignas(64) float lanes[Heads][kKeys][kLanes];
    for (size_t k = 0; k < kKeys; ++k) {
      typename V::F32 sum[Heads];
      score_lanes<V, Heads>(s, h, j + k, sum);
      for (size_t n = 0; n < Heads; ++n) V::store(lanes[n][k], sum[n]);
    }
    for (size_t n = 0; n < Heads; ++n) {
      const auto* const of_head = lanes[n];
      V::store_sums(out + n * s.scores_stride + j, V::load(of_head[0]), V::load(of_head[1]), V::load(of_head[2]),
                    V::load(of_head[3]));
    }
  }
  for (; j < s.count; ++j) {
    typename V::F32 sum[Heads];
    score_lanes<V, Heads>(s, h, j, sum);
    for (size_t n = 0; n < Heads; ++n) out[n * s.scores_stride + j] = V::sum(sum[n]);
  }
}

template <class V>
void scores(const Scores& s) {
  for_heads<V>(s.heads, [&](auto heads, size_t h) { scores_of<V, decltype(heads)::kCount>(s, h); });
}

// `Vectors` vectors of every row, for `Heads` heads.
template <class V, size_t Heads, size_t Vectors, class Memory>
HQQ_INLINE void weighted_columns(const WeightedSums& w, size_t h, size_t column, Memory memory) {
  const float* const weights = w.weights + h * w.weights_stride;
  float* const out = w.sums + h * w.width + column;
  typename V::F32 sum[Heads][Vectors];
  for (size_t i = 0; i < Heads; ++i)
    for (size_t v = 0; v < Vectors; ++v) sum[i][v] = memory.load(out + i * w.width + v * kLanes);
  const float* row = w.rows + column;
  for (size_t j = 0; j < w.count; ++j, row += w.stride) {
    typename V::F32 weight[Heads];
    for (size_t i = 0; i < Heads; ++i) weight[i] = V::set(weights[i * w.weights_stride + j]);
    for (size_t v = 0; v < Vectors; ++v) {
      prefetch_floats<V>(row + v * kLanes, kRowsAhead * w.stride);
      const auto x = memory.load(row + v * kLanes);
      for (size_t i = 0; i < Heads; ++i) sum[i][v] = V::fma(weight[i], x, sum[i][v]);
    }
  }
  for (size_t i = 0; i < Heads; ++i)
    for (size_t v = 0; v < Vectors; ++v) memory.store(out + i * w.width + v * kLanes, sum[i][v]);
}

template <class V>
void weighted_sums(const WeightedSums& w) {
  for_heads<V>(w.heads, [&](auto heads, size_t h) {
    // As many sums as hide the time that one takes, and as the registers hold.
    constexpr size_t kHeads = decltype(heads)::kCount, kVectors = V::kBytes == 64 || kHeads == 1 ? 4 : 2;
    size_t c = 0;
    for (; c + kVectors * kLanes <= w.width; c += kVectors * kLanes)
      weighted_columns<V, kHeads, kVectors>(w, h, c, Whole<V>{});
    for_each_vector<V>(w.width - c,
                       [&](auto memory, size_t i) { weighted_columns<V, kHeads, 1>(w, h, c + i, memory); });
  });
}

}  // namespace hqq::kernels
