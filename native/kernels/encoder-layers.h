#pragma once
#include <cmath>

#include "encoder-table.h"
#include "layers.h"

// What blocks of encoders have in place of RMSNorm and gates.
namespace hqq::kernels {

// Of a row: its mean, and one over its standard deviation.
struct Moments {
  float mean, factor;
};

template <class V>
HQQ_INLINE Moments moments(const float* x, size_t count, float epsilon) {
  auto sum = V::set(0.0f), squares = V::set(0.0f);
  for_each_vector<V>(count, [&](auto memory, size_t i) { sum = V::add(sum, memory.load(x + i)); });
  const float mean = V::sum(sum) / static_cast<float>(count);
  const auto mean_f32 = V::set(mean);
  for_each_vector<V>(count, [&](auto memory, size_t i) {
    const auto off = V::sub(memory.load(x + i), mean_f32);
    const auto square = V::mul(off, off);
    const size_t rest = count - i;
    squares = V::add(squares, rest < kLanes ? V::first(square, rest) : square);
  });
  return {mean, 1.0f / std::sqrt(V::sum(squares) / static_cast<float>(count) + epsilon)};
}

template <class V>
void layer_norm(const float* x, const float* weight, const float* bias, size_t count, float epsilon, float* out) {
  const Moments of = moments<V>(x, count, epsilon);
  const auto mean = V::set(of.mean), factor = V::set(of.factor);
  for_each_vector<V>(count, [&](auto memory, size_t i) {
    const auto normed = V::mul(V::sub(memory.load(x + i), mean), factor);
    memory.store(out + i, V::fma(normed, memory.load(weight + i), memory.load(bias + i)));
  });
}

// e^(-x^2 / 2), and the complementary error function of |x| / sqrt(2) by that: coefficients of Numerical Recipes,
// "erfcc", whose relative error is less than 1.2e-7 everywhere.
template <class V>
HQQ_INLINE typename V::F32 bell(typename V::F32 x) {
  return simd::exp<V>(V::mul(V::mul(x, x), V::set(-0.5f)));
}
template <class V>
HQQ_INLINE typename V::F32 complement(typename V::F32 size, typename V::F32 bell_f32) {
  const auto one = V::set(1.0f);
  const auto t = V::div(one, V::fma(size, V::set(0.353553391f), one));
  auto series = V::set(0.17087277f);
  for (const float c : {-0.82215223f, 1.48851587f, -1.13520398f, 0.27886807f, -0.18628806f, 0.09678418f, 0.37409196f,
                        1.00002368f, -1.26551223f})
    series = V::fma(series, t, V::set(c));
  return V::mul(V::mul(t, simd::exp<V>(series)), bell_f32);
}

// x times the normal distribution's share below it. Below 0 that is half of the complement, above what is left of 1.
template <class V>
void gelu(float* x, size_t count) {
  const auto zero = V::set(0.0f), half = V::set(0.5f);
  for_each_vector<V>(count, [&](auto memory, size_t i) {
    const auto value = memory.load(x + i), size = V::abs(value);
    const auto outside = V::mul(V::mul(size, half), complement<V>(size, bell<V>(value)));
    memory.store(x + i, V::sub(V::max(zero, value), outside));
  });
}

// As `geglu` has it.
template <class V>
void gelu_tanh(float* x, size_t count) {
  const auto one = V::set(1.0f), linear = V::set(-1.59576912f), cubic = V::set(-0.0713548163f);
  for_each_vector<V>(count, [&](auto memory, size_t i) {
    const auto value = memory.load(x + i);
    const auto exponent = V::mul(value, V::fma(V::mul(value, value), cubic, linear));
    memory.store(x + i, V::div(value, V::add(one, simd::exp<V>(exponent))));
  });
}

template <class V>
void relu(float* x, size_t count) {
  const auto zero = V::set(0.0f);
  for_each_vector<V>(count, [&](auto memory, size_t i) { memory.store(x + i, V::max(zero, memory.load(x + i))); });
}

template <class V>
constexpr EncoderKernels make_encoder() {
  return {.layer_norm = &layer_norm<V>, .gelu = &gelu<V>, .gelu_tanh = &gelu_tanh<V>, .relu = &relu<V>};
}

}  // namespace hqq::kernels
