#pragma once
#include "operations.h"

// Operations of tuning, all in float32.
namespace hqq::core {

// Gradients of dense_linear from those of its outputs.
struct DenseLinearGradient {
  size_t batch, in_features, out_features;
  const float* x;          // [batch, in_features]         read with weight_gradient
  const float* weights;    // [out_features, in_features]  read with x_gradient
  const float* gradient;   // [batch, out_features]        read: of the outputs
  float* x_gradient;       // [batch, in_features]         added to; may be null
  float* weight_gradient;  // [out_features, in_features]  written; may be null
};
Status dense_linear_gradient(const Context& context, const DenseLinearGradient& op);

struct FakeQuantize {
  kernels::FakeGroups groups;
  kernels::FakeOutputs outputs;
};
Status fake_quantize(const Context& context, const FakeQuantize& op);

struct FakeQuantizeGradient {
  kernels::FakeGroups groups;
  kernels::FakeGradients gradients;
};
Status fake_quantize_gradient(const Context& context, const FakeQuantizeGradient& op);

struct FakeQuantizeStep {
  kernels::FakeGroups groups;
  kernels::FakeStep step;
};
Status fake_quantize_step(const Context& context, const FakeQuantizeStep& op);

}  // namespace hqq::core
