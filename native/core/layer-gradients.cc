#include "layer-gradients.h"

#include <cmath>

#include "units.h"

namespace hqq::core {

Status rms_norm_gradient(const Context& context, const NormGradient& op) {
  const kernels::LayerGradientKernels& kernels = context.kernels.tune.layers;
  return parallel_for(context, op.rows, [&](size_t row, int) {
    const size_t at = row * op.cols;
    const auto count = static_cast<float>(op.cols);
    const float mean = context.kernels.sum_of_squares(op.x + at, op.cols) / count;
    const float factor = 1.0f / std::sqrt(mean + op.epsilon);
    const float sum = kernels.weighted_dot(op.x + at, op.weight, op.gradient + at, op.cols);
    kernels.norm(op.x + at, op.weight, op.gradient + at, op.cols, factor, factor * factor * (factor * sum / count),
                 op.adds, op.x_gradient + at);
  });
}

namespace {

template <class Kernel>
Status gated_gradient(const Context& context, const GatedGradient& op, const Kernel& kernel) {
  return for_units(context, op.count, [&](size_t first, size_t count) {
    const auto& [gate, up, gradient, gate_gradient, up_gradient] = op.arrays;
    kernel({gate + first, up + first, gradient + first, gate_gradient + first, up_gradient + first}, count);
  });
}

}  // namespace

Status swiglu_gradient(const Context& context, const GatedGradient& op) {
  return gated_gradient(context, op, context.kernels.tune.layers.swiglu);
}

Status geglu_gradient(const Context& context, const GatedGradient& op) {
  return gated_gradient(context, op, context.kernels.tune.layers.geglu);
}

Status scale_gradient(const Context& context, const ScaleGradient& op) {
  return for_units(context, op.count, [&](size_t first, size_t count) {
    context.kernels.tune.layers.softcap(op.out + first, count, op.factor, op.softcap, op.gradient + first);
  });
}

Status columns_gradient(const Context& context, const ColumnsGradient& op) {
  return parallel_for(context, op.rows, [&](size_t row, int) {
    context.kernels.add(op.gradient + row * op.cols, op.cols, op.x_gradient + row * op.width + op.from);
  });
}

Status clear(const Context& context, const Clear& op) {
  return for_units(context, op.count, [&](size_t first, size_t count) { std::fill_n(op.x + first, count, 0.0f); });
}

}  // namespace hqq::core
