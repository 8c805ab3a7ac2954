#pragma once
#include "../layers.h"
#include "layer-table.h"

// Gradients of what ../layers.h computes.
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

template <class V>
constexpr LayerGradientKernels make_layer_gradients() {
  return {.weighted_dot = &weighted_dot<V>,
          .norm = &norm_gradient<V>,
          .swiglu = &swiglu_gradient<V>,
          .geglu = &geglu_gradient<V>,
          .softcap = &softcap_gradient<V>,
          .softmax = &softmax_gradient<V>};
}

}  // namespace hqq::kernels
