#pragma once
#include <cstddef>

// Gradients of layers: what an instruction set gives to them; a part of kernels/table.h. As of layers, the bits are the
// instruction set's own.
namespace hqq::kernels {

// Gradients of what two arrays were made to.
struct GatedGradient {
  const float* gate;
  const float* up;
  const float* gradient;
  float* gate_gradient;
  float* up_gradient;
};

struct LayerGradientKernels {
  // sum of x * weight * gradient
  float (*weighted_dot)(const float* x, const float* weight, const float* gradient, size_t count);
  // to = factor * weight * gradient - pull * x, or that is added to it
  void (*norm)(const float* x, const float* weight, const float* gradient, size_t count, float factor, float pull,
               bool adds, float* to);
  void (*swiglu)(const GatedGradient& gated, size_t count);
  void (*geglu)(const GatedGradient& gated, size_t count);
  // gradient *= factor * (1 - (out / cap)^2)
  void (*softcap)(const float* out, size_t count, float factor, float cap, float* gradient);
  // Of one row: weights, which are exponentials, become probabilities, and gradients of these become scale times those
  // of scores.
  void (*softmax)(float* weights, float* gradient, size_t count, float total, float scale);
  // Of `layer_norm`: to = that of x, or that is added to it.
  void (*layer_norm)(const float* x, const float* weight, const float* gradient, size_t count, float epsilon, bool adds,
                     float* to);
  // gradient *= the slope at x
  void (*gelu)(const float* x, size_t count, float* gradient);
  void (*gelu_tanh)(const float* x, size_t count, float* gradient);
  void (*relu)(const float* x, size_t count, float* gradient);
};

}  // namespace hqq::kernels
