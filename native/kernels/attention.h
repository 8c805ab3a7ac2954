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

// What a cache holds: floats, or bytes in groups that share a scale and a least element.
template <class V>
struct FloatCache {
  using Element = float;
  static constexpr size_t kMeta = 0;  // floats of a group
  static HQQ_INLINE typename V::F32 load(const Element* p) { return V::load(p); }
};

template <class V>
struct HalfCache {
  using Element = uint16_t;
  static constexpr size_t kMeta = 0;
  static HQQ_INLINE typename V::F32 load(const Element* p) { return V::load_f16(p); }
};

template <class V>
struct ByteCache {
  using Element = uint8_t;
  static constexpr size_t kMeta = 2;
  static HQQ_INLINE typename V::F32 load(const Element* p) { return V::load_u8(p); }
};

// A vector of a row in memory, or the first `count` lanes of one.
template <class V, class Cache>
HQQ_INLINE typename V::F32 load_row(const typename Cache::Element* p, Whole<V>) {
  return Cache::load(p);
}
template <class V, class Cache>
HQQ_INLINE typename V::F32 load_row(const typename Cache::Element* p, const Part<V>& part) {
  typename Cache::Element lanes[kLanes] = {};
  for (size_t i = 0; i < part.count; ++i) lanes[i] = p[i];
  return Cache::load(lanes);
}

// Asks for what lies 2 KiB behind some elements. Caches are read from one end to the other; past it nothing is read.
template <class V, class Element>
HQQ_INLINE void prefetch_ahead([[maybe_unused]] const Element* p, [[maybe_unused]] size_t count) {
  constexpr uintptr_t kAhead = 2048;
  if constexpr (simd::Prefetching<V>)
    for (size_t at = 0; at < count * sizeof(Element); at += 64)
      V::prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(p) + kAhead + at));
}

// Products of some elements of a query with a strip of keys. Keys are lanes, so no sum goes across them; even and odd
// elements have sums of their own, so that one is added to while the other's last addition is under way.
template <class V, class Cache, size_t Count>
HQQ_INLINE void dots_of_strip(const float* const* q, const typename Cache::Element* keys, size_t first, size_t end,
                              typename V::F32* even, typename V::F32* odd) {
  size_t d = first;
  for (; d + 2 <= end; d += 2, keys += 2 * kLanes) {
    prefetch_ahead<V>(keys, 2 * kLanes);
    const auto even_f32 = Cache::load(keys), odd_f32 = Cache::load(keys + kLanes);
    for (size_t i = 0; i < Count; ++i) even[i] = V::fma(V::set(q[i][d]), even_f32, even[i]);
    for (size_t i = 0; i < Count; ++i) odd[i] = V::fma(V::set(q[i][d + 1]), odd_f32, odd[i]);
  }
  if (d == end) return;
  const auto last_f32 = Cache::load(keys);
  for (size_t i = 0; i < Count; ++i) even[i] = V::fma(V::set(q[i][d]), last_f32, even[i]);
}

// Of groups, the products of codes are made floats at once: x = code * scale + least, so sum of q * x = scale * sum of
// q * code + least * sum of q.
template <class V, class Cache, size_t Count>
HQQ_INLINE void scores_of_strip(const Scores& s, const typename Cache::Element* keys, const float* meta, size_t n,
                                size_t strip) {
  const float* q[Count];
  typename V::F32 sum[Count], even[Count], odd[Count];
  for (size_t i = 0; i < Count; ++i) q[i] = s.queries[n + i], sum[i] = V::set(0.0f);
  constexpr size_t kGroup = Cache::kMeta > 0 ? kCacheGroup : SIZE_MAX;
  for (size_t d = 0, end; d < s.width; d = end, meta += Cache::kMeta * kLanes) {
    end = s.width - d > kGroup ? d + kGroup : s.width;
    for (size_t i = 0; i < Count; ++i) even[i] = odd[i] = V::set(0.0f);
    dots_of_strip<V, Cache, Count>(q, keys + d * kLanes, d, end, even, odd);
    for (size_t i = 0; i < Count; ++i) {
      const auto dot = V::add(even[i], odd[i]);
      if constexpr (Cache::kMeta == 0) {
        sum[i] = dot;
      } else {
        sum[i] = V::fma(dot, V::load(meta), sum[i]);
        sum[i] = V::fma(V::set(s.totals[n + i][d / kCacheGroup]), V::load(meta + kLanes), sum[i]);
      }
    }
  }
  for (size_t i = 0; i < Count; ++i) V::store(s.scores[n + i] + strip * kLanes, sum[i]);
}

template <class V, class Cache>
void scores(const Scores& s) {
  const auto* keys = static_cast<const typename Cache::Element*>(s.keys);
  const float* meta = s.meta;
  const size_t meta_stride = (s.width + kCacheGroup - 1) / kCacheGroup * Cache::kMeta * kLanes;
  for (size_t strip = 0; strip < s.strips; ++strip, keys += s.width * kLanes, meta += meta_stride)
    for_queries<V>(s.count, [&](auto queries, size_t n) HQQ_INLINE_LAMBDA {
      scores_of_strip<V, Cache, decltype(queries)::kCount>(s, keys, meta, n, strip);
    });
}

// `Vectors` vectors of every row, in one group. Of bytes, weights are multiplied with the scales of rows, and what the
// least elements come to is added at the end.
template <class V, class Cache, size_t Count, size_t Vectors, class Memory>
HQQ_INLINE void weighted_columns(const WeightedSums& w, size_t n, size_t column, Memory memory) {
  const float* weights[Count];
  float least[Count] = {};
  typename V::F32 sum[Count][Vectors];
  for (size_t i = 0; i < Count; ++i) {
    weights[i] = w.weights[n + i] + w.first;
    for (size_t v = 0; v < Vectors; ++v) sum[i][v] = memory.load(w.sums[n + i] + column + v * kLanes);
  }
  const auto* row = static_cast<const typename Cache::Element*>(w.values) + column;
  const float* meta = w.meta + column / kCacheGroup * Cache::kMeta;
  const size_t meta_stride = (w.width + kCacheGroup - 1) / kCacheGroup * Cache::kMeta;
  for (size_t j = 0; j < w.rows; ++j, row += w.width, meta += meta_stride) {
    prefetch_ahead<V>(row, Vectors * kLanes);
    typename V::F32 weight[Count];
    for (size_t i = 0; i < Count; ++i) {
      if constexpr (Cache::kMeta > 0) {
        weight[i] = V::set(weights[i][j] * meta[0]);
        least[i] += weights[i][j] * meta[1];
      } else {
        weight[i] = V::set(weights[i][j]);
      }
    }
    for (size_t v = 0; v < Vectors; ++v) {
      const auto x = load_row<V, Cache>(row + v * kLanes, memory);
      for (size_t i = 0; i < Count; ++i) sum[i][v] = V::fma(weight[i], x, sum[i][v]);
    }
  }
  for (size_t i = 0; i < Count; ++i)
    for (size_t v = 0; v < Vectors; ++v) {
      if constexpr (Cache::kMeta > 0) sum[i][v] = V::add(sum[i][v], V::set(least[i]));
      memory.store(w.sums[n + i] + column + v * kLanes, sum[i][v]);
    }
}

template <class V, class Cache>
void weighted_sums(const WeightedSums& w) {
  for_queries<V>(w.count, [&](auto queries, size_t n) {
    // As many sums as hide the time that one takes, and as the registers hold.
    constexpr size_t kCount = decltype(queries)::kCount, kVectors = V::kBytes == 64 || kCount == 1 ? 4 : 2;
    static_assert(kCacheGroup % (kVectors * kLanes) == 0);
    size_t c = 0;
    for (; c + kVectors * kLanes <= w.width; c += kVectors * kLanes)
      weighted_columns<V, Cache, kCount, kVectors>(w, n, c, Whole<V>{});
    for_each_vector<V>(w.width - c,
                       [&](auto memory, size_t i) { weighted_columns<V, Cache, kCount, 1>(w, n, c + i, memory); });
  });
}

}  // namespace hqq::kernels
