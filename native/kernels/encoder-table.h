#pragma once
#include <cstddef>

// Layers of encoders: what an instruction set gives to them; a part of kernels/table.h. As of other layers, the bits
// are the instruction set's own.
namespace hqq::kernels {

struct EncoderKernels {
  // out = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) * weight + bias
  void (*layer_norm)(const float* x, const float* weight, const float* bias, size_t count, float epsilon, float* out);
  // Each in place.
  void (*gelu)(float* x, size_t count);
  void (*gelu_tanh)(float* x, size_t count);
  void (*relu)(float* x, size_t count);
};

}  // namespace hqq::kernels
