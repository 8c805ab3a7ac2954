#include "encoder-layers.h"

#include "parallel.h"
#include "units.h"

// How each is cut into units of work.
namespace hqq::core {

Status layer_norm(const Context& context, const LayerNorm& op) {
  return parallel_for(context, op.rows, [&](size_t row, int) {
    context.kernels.encoder.layer_norm(op.x + row * op.cols, op.weight, op.bias, op.cols, op.epsilon,
                                       op.out + row * op.cols);
  });
}

namespace {

template <class Kernel>
Status activate(const Context& context, const Activation& op, const Kernel& kernel) {
  return for_units(context, op.count, [&](size_t first, size_t count) { kernel(op.x + first, count); });
}

template <class Kernel>
Status activation_gradient(const Context& context, const ActivationGradient& op, const Kernel& kernel) {
  return for_units(context, op.count,
                   [&](size_t first, size_t count) { kernel(op.x + first, count, op.gradient + first); });
}

}  // namespace

Status gelu(const Context& context, const Activation& op) {
  return activate(context, op, context.kernels.encoder.gelu);
}

Status gelu_tanh(const Context& context, const Activation& op) {
  return activate(context, op, context.kernels.encoder.gelu_tanh);
}

Status relu(const Context& context, const Activation& op) {
  return activate(context, op, context.kernels.encoder.relu);
}

Status layer_norm_gradient(const Context& context, const NormGradient& op) {
  return parallel_for(context, op.rows, [&](size_t row, int) {
    const size_t at = row * op.cols;
    context.kernels.tune.layers.layer_norm(op.x + at, op.weight, op.gradient + at, op.cols, op.epsilon, op.adds,
                                           op.x_gradient + at);
  });
}

Status gelu_gradient(const Context& context, const ActivationGradient& op) {
  return activation_gradient(context, op, context.kernels.tune.layers.gelu);
}

Status gelu_tanh_gradient(const Context& context, const ActivationGradient& op) {
  return activation_gradient(context, op, context.kernels.tune.layers.gelu_tanh);
}

Status relu_gradient(const Context& context, const ActivationGradient& op) {
  return activation_gradient(context, op, context.kernels.tune.layers.relu);
}

}  // namespace hqq::core
