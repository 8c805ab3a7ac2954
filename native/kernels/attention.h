#pragma once
#include "layers.h"

// Attention: several queries share their keys and values, and each of these is read once for a few of them.
namespace hqq::kernels {

// Queries whose sums are in registers together, of `count` that are left. Two and two are faster than three and one.
template <class V>
constexpr size_t queries_at_once(size_t count) {
  constexpr size_t kMost = V::kBytes == 64 ? 4 : 3;
  return count <= kMost ? count : count == kMost + 1 ? 2 : kMost;
}

template <size_t Count>
struct Queries {
  static constexpr size_t kCount = Count;
};

// Calls body(Queries<n>, first) for queries `first` to `first + n`, until all of them were among these.
template <class V, class Body>
HQQ_INLINE void for_queries(size_t count, const Body& body) {
  for (size_t n = 0; n < count;) {
    const size_t some = queries_at_once<V>(count - n);
    switch (some) {
      case 1: body(Queries<1>{}, n); break;
      case 2: body(Queries<2>{}, n); break;
      case 3: body(Queries<3>{}, n); break;
      default: body(Queries<4>{}, n);
    }
    n += some;
  }
}

// A strip of keys. Keys are lanes, so no sum goes across them; even and odd elements have sums of their own, so that
// one is added to while the other's last addition is under way.
template <class V, size_t Count>
HQQ_INLINE void scores_of_strip(const Scores& s, const float* keys, size_t n, size_t strip) {
  const float* q[Count];
  typename V::F32 even[Count], odd[Count];
  for (size_t i = 0; i < Count; ++i) q[i] = s.queries[n + i], even[i] = odd[i] = V::set(0.0f);
  size_t d = 0;
  for (; d + 2 <= s.width; d += 2, keys += 2 * kLanes) {
    const auto even_f32 = V::load(keys), odd_f32 = V::load(keys + kLanes);
    for (size_t i = 0; i < Count; ++i) even[i] = V::fma(V::set(q[i][d]), even_f32, even[i]);
    for (size_t i = 0; i < Count; ++i) odd[i] = V::fma(V::set(q[i][d + 1]), odd_f32, odd[i]);
  }
  if (d < s.width)
    for (size_t i = 0; i < Count; ++i) even[i] = V::fma(V::set(q[i][d]), V::load(keys), even[i]);
  for (size_t i = 0; i < Count; ++i) V::store(s.scores[n + i] + strip * kLanes, V::add(even[i], odd[i]));
}

template <class V>
void scores(const Scores& s) {
  const float* keys = s.keys;
  for (size_t strip = 0; strip < s.strips; ++strip, keys += s.width * kLanes)
    for_queries<V>(s.count, [&](auto queries, size_t n) HQQ_INLINE_LAMBDA {
      scores_of_strip<V, decltype(queries)::kCount>(s, keys, n, strip);
    });
}

// `Vectors` vectors of every row.
template <class V, size_t Count, size_t Vectors, class Memory>
HQQ_INLINE void weighted_columns(const WeightedSums& w, size_t n, size_t column, Memory memory) {
  const float* weights[Count];
  typename V::F32 sum[Count][Vectors];
  for (size_t i = 0; i < Count; ++i) {
    weights[i] = w.weights[n + i] + w.first;
    for (size_t v = 0; v < Vectors; ++v) sum[i][v] = memory.load(w.sums[n + i] + column + v * kLanes);
  }
  const float* row = w.values + column;
  for (size_t j = 0; j < w.rows; ++j, row += w.width) {
    typename V::F32 weight[Count];
    for (size_t i = 0; i < Count; ++i) weight[i] = V::set(weights[i][j]);
    for (size_t v = 0; v < Vectors; ++v) {
      const auto x = memory.load(row + v * kLanes);
      for (size_t i = 0; i < Count; ++i) sum[i][v] = V::fma(weight[i], x, sum[i][v]);
    }
  }
  for (size_t i = 0; i < Count; ++i)
    for (size_t v = 0; v < Vectors; ++v) memory.store(w.sums[n + i] + column + v * kLanes, sum[i][v]);
}

template <class V>
void weighted_sums(const WeightedSums& w) {
  for_queries<V>(w.count, [&](auto queries, size_t n) {
    // As many sums as hide the time that one takes, and as the registers hold.
    constexpr size_t kCount = decltype(queries)::kCount, kVectors = V::kBytes == 64 || kCount == 1 ? 4 : 2;
    size_t c = 0;
    for (; c + kVectors * kLanes <= w.width; c += kVectors * kLanes)
      weighted_columns<V, kCount, kVectors>(w, n, c, Whole<V>{});
    for_each_vector<V>(w.width - c,
                       [&](auto memory, size_t i) { weighted_columns<V, kCount, 1>(w, n, c + i, memory); });
  });
}

}  // namespace hqq::kernels
