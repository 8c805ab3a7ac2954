#pragma once
#include "layer-gradients.h"

// Layers of encoders, all in float32, and their gradients: from those of what an operation gives to those of what it
// was given.
namespace hqq::core {

struct LayerNorm {
  size_t rows, cols;
  float epsilon;
  const float* x;       // [rows, cols]  read
  const float* weight;  // [cols]        read
  const float* bias;    // [cols]        read
  float* out;           // [rows, cols]  written; may be x
};
Status layer_norm(const Context& context, const LayerNorm& op);

struct Activation {
  size_t count;
  float* x;  // [count]  read and written
};
Status gelu(const Context& context, const Activation& op);
Status gelu_tanh(const Context& context, const Activation& op);
Status relu(const Context& context, const Activation& op);

Status layer_norm_gradient(const Context& context, const NormGradient& op);

struct ActivationGradient {
  size_t count;
  const float* x;   // [count]  read
  float* gradient;  // [count]  read and written
};
Status gelu_gradient(const Context& context, const ActivationGradient& op);
Status gelu_tanh_gradient(const Context& context, const ActivationGradient& op);
Status relu_gradient(const Context& context, const ActivationGradient& op);

}  // namespace hqq::core
