#pragma once
#include "../encoder-layers.h"
#include "layer-table.h"

// Gradients of what ../layers.h and ../encoder-layers.h compute.
namespace hqq::kernels {

template <class V>
float weighted_dot(const float* x, const float* weight, const float* gradient, size_t count) {
  auto sum = V::set(0.0f);
  for_each_vector<V>(count, [&](auto memory, size_t i) {
    sum = V::fma(V::mul(memory.load(x + i), memory.load(weight + i)), memory.load(gradient + i), sum);
  });
  return V::sum(sum);
}

template <class V>
void norm_gradient(const float* x, const float* weight, const float* gradient, size_t count, float factor, float pull,
                   bool adds, float* to) {
  const auto factor_f32 = V::set(factor), pull_f32 = V::set(-pull);
  for_each_vector<V>(count, [&](auto memory, size_t i) {
    const auto own = V::mul(V::mul(memory.load(gradient + i), memory.load(weight + i)), factor_f32);
    const auto change = V::fma(memory.load(x + i), pull_f32, own);
    memory.store(to + i, adds ? V::add(memory.load(to + i), change) : change);
  });
}

// The gradient of g * s * up, where s = 1 / (1 + e^-u): `exponent` gives -u, and `slope` the derivative of u, both of
// g. Where 1 - s is next to nothing, powers that ended at e^88 make it no less than that: g is bounded there, or a
// large one would make something of it.
template <class V, class Exponent, class Slope>
HQQ_INLINE void gated_gradient(const GatedGradient& d, size_t count, float most, const Exponent& exponent,
                               const Slope& slope) {
  const auto one = V::set(1.0f), high = V::set(most), low = V::set(-most);
  for_each_vector<V>(count, [&](auto memory, size_t i) {
    const auto g = memory.load(d.gate + i), y = memory.load(d.gradient + i);
    const auto power = simd::exp<V>(exponent(g));
    const auto share = V::div(one, V::add(one, power));
    const auto near = V::min(high, V::max(low, g));
    const auto rest = V::mul(V::mul(share, V::mul(power, share)), V::mul(near, slope(near)));
    const auto up = memory.load(d.up + i);
    memory.store(d.up_gradient + i, V::mul(y, V::mul(g, share)));
    memory.store(d.gate_gradient + i, V::mul(V::mul(y, up), V::add(share, rest)));
  });
}

template <class V>
void swiglu_gradient(const GatedGradient& d, size_t count) {
  const auto zero = V::set(0.0f), one = V::set(1.0f);
  gated_gradient<V>(d, count, 100.0f, [&](auto g) { return V::sub(zero, g); }, [&](auto) { return one; });
}

template <class V>
void geglu_gradient(const GatedGradient& d, size_t count) {
  const auto linear = V::set(-1.59576912f), cubic = V::set(-0.0713548163f);
  const auto slope_linear = V::set(1.59576912f), slope_cubic = V::set(3 * 0.0713548163f);
  gated_gradient<V>(
      d, count, 16.0f, [&](auto g) { return V::mul(g, V::fma(V::mul(g, g), cubic, linear)); },
      [&](auto g) { return V::fma(V::mul(g, g), slope_cubic, slope_linear); });
}

template <class V>
void softcap_gradient(const float* out, size_t count, float factor, float cap, float* gradient) {
  const auto factor_f32 = V::set(factor), inverse = V::set(1.0f / cap), one = V::set(1.0f);
  for_each_vector<V>(count, [&](auto memory, size_t i) {
    const auto bent = V::mul(memory.load(out + i), inverse);
    const auto slope = V::mul(factor_f32, V::sub(one, V::mul(bent, bent)));
    memory.store(gradient + i, V::mul(memory.load(gradient + i), slope));
  });
}

template <class V>
void softmax_gradient(float* weights, float* gradient, size_t count, float total, float scale) {
  const auto inverse = V::set(1.0f / total), scale_f32 = V::set(scale);
  auto sum = V::set(0.0f);
  for_each_vector<V>(count, [&](auto memory, size_t i) {
    const auto weight = V::mul(memory.load(weights + i), inverse);
    memory.store(weights + i, weight);
    sum = V::fma(weight, memory.load(gradient + i), sum);
  });
  const auto mean = V::set(V::sum(sum));
  for_each_vector<V>(count, [&](auto memory, size_t i) {
    const auto off = V::mul(V::sub(memory.load(gradient + i), mean), scale_f32);
    memory.store(gradient + i, V::mul(memory.load(weights + i), off));
  });
}

// With n the normed row before its weight and u = weight * gradient: (u - mean(u) - n mean(u n)) over the deviation.
template <class V>
void layer_norm_gradient(const float* x, const float* weight, const float* gradient, size_t count, float epsilon,
                         bool adds, float* to) {
  const Moments of = moments<V>(x, count, epsilon);
  const auto mean = V::set(of.mean), factor = V::set(of.factor);
  const auto normed = [&](auto memory, size_t i) { return V::mul(V::sub(memory.load(x + i), mean), factor); };
  auto sum = V::set(0.0f), products = V::set(0.0f);
  for_each_vector<V>(count, [&](auto memory, size_t i) {
    const auto own = V::mul(memory.load(gradient + i), memory.load(weight + i));
    sum = V::add(sum, own);
    products = V::fma(own, normed(memory, i), products);
  });
  const auto level = V::set(-V::sum(sum) / static_cast<float>(count));
  const auto pull = V::set(-V::sum(products) / static_cast<float>(count));
  for_each_vector<V>(count, [&](auto memory, size_t i) {
    const auto own = V::fma(memory.load(gradient + i), memory.load(weight + i), level);
    const auto change = V::mul(V::fma(normed(memory, i), pull, own), factor);
    memory.store(to + i, adds ? V::add(memory.load(to + i), change) : change);
  });
}

// The share below x, and x times the density: where that is next to nothing, powers that ended at e^-87 make it no less
// than that, and x is bounded, or a large one would make something of it.
template <class V>
void gelu_gradient(const float* x, size_t count, float* gradient) {
  const auto half = V::set(0.5f), high = V::set(16.0f), low = V::set(-16.0f), density = V::set(0.398942280f);
  for_each_vector<V>(count, [&](auto memory, size_t i) {
    const auto value = memory.load(x + i), size = V::abs(value), bell_f32 = bell<V>(value);
    const auto outside = V::mul(half, complement<V>(size, bell_f32));
    const auto below = V::sub(V::add(half, V::copysign(half, value)), V::copysign(outside, value));
    const auto near = V::min(high, V::max(low, value));
    const auto slope = V::fma(V::mul(near, density), bell_f32, below);
    memory.store(gradient + i, V::mul(memory.load(gradient + i), slope));
  });
}

template <class V>
void gelu_tanh_gradient(const float* x, size_t count, float* gradient) {
  const auto one = V::set(1.0f), high = V::set(16.0f), low = V::set(-16.0f);
  const auto linear = V::set(-1.59576912f), cubic = V::set(-0.0713548163f);
  const auto slope_linear = V::set(1.59576912f), slope_cubic = V::set(3 * 0.0713548163f);
  for_each_vector<V>(count, [&](auto memory, size_t i) {
    const auto value = memory.load(x + i);
    const auto power = simd::exp<V>(V::mul(value, V::fma(V::mul(value, value), cubic, linear)));
    const auto share = V::div(one, V::add(one, power)), near = V::min(high, V::max(low, value));
    const auto bend = V::mul(near, V::fma(V::mul(near, near), slope_cubic, slope_linear));
    const auto slope = V::fma(V::mul(share, V::mul(power, share)), bend, share);
    memory.store(gradient + i, V::mul(memory.load(gradient + i), slope));
  });
}

// At 0 the slope is 0.
template <class V>
void relu_gradient(const float* x, size_t count, float* gradient) {
  const auto zero = V::set(0.0f), one = V::set(1.0f);
  for_each_vector<V>(count, [&](auto memory, size_t i) {
    const auto grown = V::mul(V::mul(V::max(zero, memory.load(x + i)), V::set(0x1p126f)), V::set(0x1p24f));
    memory.store(gradient + i, V::mul(memory.load(gradient + i), V::min(grown, one)));
  });
}

template <class V>
constexpr LayerGradientKernels make_layer_gradients() {
  return {.weighted_dot = &weighted_dot<V>,
          .norm = &norm_gradient<V>,
          .swiglu = &swiglu_gradient<V>,
          .geglu = &geglu_gradient<V>,
          .softcap = &softcap_gradient<V>,
          .softmax = &softmax_gradient<V>,
          .layer_norm = &layer_norm_gradient<V>,
          .gelu = &gelu_gradient<V>,
          .gelu_tanh = &gelu_tanh_gradient<V>,
          .relu = &relu_gradient<V>};
}

}  // namespace hqq::kernels
