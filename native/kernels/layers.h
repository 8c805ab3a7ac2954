#pragma once
#include "../simd/math.h"
#include "dense.h"

namespace hqq::kernels {

// Stores the first `count` lanes.
template <class V>
HQQ_INLINE void store_first(float* p, typename V::F32 v, size_t count) {
  float lanes[kLanes];
  V::store(lanes, v);
  copy_lanes<V>(lanes, count, p);
}

// Calls body(load, store, offset) for each vector of `count` floats; in the last one load and store stop at its end, and
// load fills with zeros.
template <class V, class Body>
HQQ_INLINE void for_each_vector(size_t count, const Body& body) {
  for_vectors<V>(
      count,
      [&](size_t i) {
        body([](const float* p) { return V::load(p); }, [](float* p, typename V::F32 v) { V::store(p, v); }, i);
      },
      [&](size_t i, size_t rest) {
        body([rest](const float* p) { return load_first<V>(p, rest); },
             [rest](float* p, typename V::F32 v) { store_first<V>(p, v, rest); }, i);
      });
}

template <class V>
float sum_of_squares(const float* x, size_t count) {
  auto sum = V::set(0.0f);
  for_each_vector<V>(count, [&](const auto& load, const auto&, size_t i) {
    const auto x_f32 = load(x + i);
    sum = V::fma(x_f32, x_f32, sum);
  });
  return V::sum(sum);
}

template <class V>
void scale(const float* x, const float* weight, size_t count, float factor, float* out) {
  const auto factor_f32 = V::set(factor);
  for_each_vector<V>(count, [&](const auto& load, const auto& store, size_t i) {
    store(out + i, V::mul(V::mul(load(x + i), factor_f32), load(weight + i)));
  });
}

template <class V>
void turn(float* x, const float* cos, const float* sin, size_t half) {
  for_each_vector<V>(half, [&](const auto& load, const auto& store, size_t i) {
    const auto a = load(x + i), b = load(x + half + i), c = load(cos + i), s = load(sin + i);
    store(x + i, V::sub(V::mul(a, c), V::mul(b, s)));
    store(x + half + i, V::fma(b, c, V::mul(a, s)));
  });
}

template <class V>
float softmax(float* scores, size_t count, float scale) {
  auto highest = V::set(scores[0]);
  for_vectors<V>(
      count, [&](size_t i) { highest = V::max(highest, V::load(scores + i)); },
      [&](size_t i, size_t rest) {
        for (size_t k = 0; k < rest; ++k) highest = V::max(highest, V::set(scores[i + k]));
      });
  const auto top = V::set(V::max_across(highest)), scale_f32 = V::set(scale);
  auto sum = V::set(0.0f);
  const auto power = [&](typename V::F32 score) { return simd::exp<V>(V::mul(V::sub(score, top), scale_f32)); };
  for_vectors<V>(
      count,
      [&](size_t i) {
        const auto p = power(V::load(scores + i));
        V::store(scores + i, p);
        sum = V::add(sum, p);
      },
      [&](size_t i, size_t rest) {
        const auto p = V::first(power(load_first<V>(scores + i, rest)), rest);
        store_first<V>(scores + i, p, rest);
        sum = V::add(sum, p);
      });
  return V::sum(sum);
}

// `Vectors` vectors of every row at once.
template <class V, size_t Vectors, class Load, class Store>
HQQ_INLINE void weighted_columns(const float* weights, const float* rows, size_t stride, size_t count, float factor,
                                 float* out, const Load& load, const Store& store) {
  typename V::F32 sum[Vectors];
  for (auto& s : sum) s = V::set(0.0f);
  for (size_t j = 0; j < count; ++j) {
    const auto weight = V::set(weights[j]);
    for (size_t v = 0; v < Vectors; ++v) sum[v] = V::fma(weight, load(rows + j * stride + v * kLanes), sum[v]);
  }
  for (size_t v = 0; v < Vectors; ++v) store(out + v * kLanes, V::mul(sum[v], V::set(factor)));
}

template <class V>
void weighted_sum(const float* weights, const float* rows, size_t stride, size_t count, size_t width, float factor,
                  float* out) {
  constexpr size_t kAtOnce = 4;
  size_t c = 0;
  for (; c + kAtOnce * kLanes <= width; c += kAtOnce * kLanes)
    weighted_columns<V, kAtOnce>(
        weights, rows + c, stride, count, factor, out + c, [](const float* p) { return V::load(p); },
        [](float* p, typename V::F32 v) { V::store(p, v); });
  for_each_vector<V>(width - c, [&](const auto& load, const auto& store, size_t i) {
    weighted_columns<V, 1>(weights, rows + c + i, stride, count, factor, out + c + i, load, store);
  });
}

template <class V>
void swiglu(const float* gate, const float* up, size_t count, float* out) {
  const auto one = V::set(1.0f), zero = V::set(0.0f);
  for_each_vector<V>(count, [&](const auto& load, const auto& store, size_t i) {
    const auto g = load(gate + i);
    const auto silu = V::div(g, V::add(one, simd::exp<V>(V::sub(zero, g))));
    store(out + i, V::mul(silu, load(up + i)));
  });
}

template <class V>
void add(const float* x, size_t count, float* to) {
  for_each_vector<V>(count, [&](const auto& load, const auto& store, size_t i) {
    store(to + i, V::add(load(to + i), load(x + i)));
  });
}

}  // namespace hqq::kernels
