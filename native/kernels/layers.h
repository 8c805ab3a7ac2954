#pragma once
#include "../simd/math.h"
#include "dense.h"

namespace hqq::kernels {

// A whole vector in memory.
template <class V>
struct Whole {
  static HQQ_INLINE typename V::F32 load(const float* p) { return V::load(p); }
  static HQQ_INLINE void store(float* p, typename V::F32 v) { V::store(p, v); }
};

// The first `count` lanes of one; the others are zeros, and stay in their register.
template <class V>
struct Part {
  size_t count;
  HQQ_INLINE typename V::F32 load(const float* p) const { return load_first<V>(p, count); }
  HQQ_INLINE void store(float* p, typename V::F32 v) const {
    float lanes[kLanes];
    V::store(lanes, v);
    copy_lanes<V>(lanes, count, p);
  }
};

// Calls body(memory, offset) for each vector of `count` floats; `memory` loads and stores as much of it as there is.
template <class V, class Body>
HQQ_INLINE void for_each_vector(size_t count, const Body& body) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(Whole<V>{}, i);
  if (i < count) body(Part<V>{count - i}, i);
}

template <class V>
float sum_of_squares(const float* x, size_t count) {
  auto sum = V::set(0.0f);
  for_each_vector<V>(count, [&](auto memory, size_t i) {
    const auto x_f32 = memory.load(x + i);
    sum = V::fma(x_f32, x_f32, sum);
  });
  return V::sum(sum);
}

template <class V>
void scale(const float* x, const float* weight, size_t count, float factor, float* out) {
  const auto factor_f32 = V::set(factor);
  for_each_vector<V>(count, [&](auto memory, size_t i) {
    memory.store(out + i, V::mul(V::mul(memory.load(x + i), factor_f32), memory.load(weight + i)));
  });
}

template <class V>
void turn(float* x, const float* cos, const float* sin, size_t half) {
  for_each_vector<V>(half, [&](auto memory, size_t i) {
    const auto a = memory.load(x + i), b = memory.load(x + half + i), c = memory.load(cos + i),
               s = memory.load(sin + i);
    memory.store(x + i, V::sub(V::mul(a, c), V::mul(b, s)));
    memory.store(x + half + i, V::fma(b, c, V::mul(a, s)));
  });
}

template <class V>
float softmax(float* scores, size_t count, float scale) {
  float highest = scores[0];
  const size_t whole = count / kLanes * kLanes;
  if (whole > 0) {
    auto lanes = V::load(scores);
    for (size_t i = kLanes; i < whole; i += kLanes) lanes = V::max(lanes, V::load(scores + i));
    highest = V::max_across(lanes);
  }
  for (size_t i = whole; i < count; ++i) highest = scores[i] > highest ? scores[i] : highest;

  const auto top = V::set(highest), scale_f32 = V::set(scale);
  auto sum = V::set(0.0f);
  for_each_vector<V>(count, [&](auto memory, size_t i) {
    const auto power = simd::exp<V>(V::mul(V::sub(memory.load(scores + i), top), scale_f32));
    memory.store(scores + i, power);
    const size_t rest = count - i;
    sum = V::add(sum, rest < kLanes ? V::first(power, rest) : power);
  });
  return V::sum(sum);
}

template <class V>
void swiglu(const float* gate, const float* up, size_t count, float* out) {
  const auto one = V::set(1.0f), zero = V::set(0.0f);
  for_each_vector<V>(count, [&](auto memory, size_t i) {
    const auto g = memory.load(gate + i);
    const auto silu = V::div(g, V::add(one, simd::exp<V>(V::sub(zero, g))));
    memory.store(out + i, V::mul(silu, memory.load(up + i)));
  });
}

// The form of GELU with a hyperbolic tangent, which is x over 1 + e^(-2u): no tanh is taken.
template <class V>
void geglu(const float* gate, const float* up, size_t count, float* out) {
  const auto one = V::set(1.0f), linear = V::set(-1.59576912f), cubic = V::set(-0.0713548163f);
  for_each_vector<V>(count, [&](auto memory, size_t i) {
    const auto g = memory.load(gate + i);
    const auto exponent = V::mul(g, V::fma(V::mul(g, g), cubic, linear));
    const auto gelu = V::div(g, V::add(one, simd::exp<V>(exponent)));
    memory.store(out + i, V::mul(gelu, memory.load(up + i)));
  });
}

template <class V>
void multiply(float* x, size_t count, float factor) {
  const auto factor_f32 = V::set(factor);
  for_each_vector<V>(count,
                     [&](auto memory, size_t i) { memory.store(x + i, V::mul(memory.load(x + i), factor_f32)); });
}

// tanh(y) = 1 - 2 / (e^2y + 1)
template <class V>
void softcap(float* x, size_t count, float factor, float cap) {
  const auto inner = V::set(2.0f * factor / cap), outer = V::set(cap), one = V::set(1.0f), two = V::set(2.0f);
  for_each_vector<V>(count, [&](auto memory, size_t i) {
    const auto power = simd::exp<V>(V::mul(memory.load(x + i), inner));
    memory.store(x + i, V::mul(outer, V::sub(one, V::div(two, V::add(power, one)))));
  });
}

template <class V>
void add(const float* x, size_t count, float* to) {
  for_each_vector<V>(
      count, [&](auto memory, size_t i) { memory.store(to + i, V::add(memory.load(to + i), memory.load(x + i))); });
}

}  // namespace hqq::kernels
