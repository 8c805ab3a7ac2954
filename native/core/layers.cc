#include "layers.h"

#include <algorithm>
#include <cmath>

#include "parallel.h"
#include "units.h"

// Layers of language models: how each is cut into units of work.
namespace hqq::core {
Status rms_norm(const Context& context, const RmsNorm& op) {
  return parallel_for(context, op.rows, [&](size_t row, int) {
    const float* const x = op.x + row * op.cols;
    const float mean = context.kernels.sum_of_squares(x, op.cols) / static_cast<float>(op.cols);
    context.kernels.scale(x, op.weight, op.cols, 1.0f / std::sqrt(mean + op.epsilon), op.out + row * op.cols);
  });
}

Status rope(const Context& context, const Rope& op) {
  const size_t half = op.turned / 2;
  return parallel_for(context, op.rows, [&](size_t row, int) {
    for (size_t h = 0; h < op.heads; ++h)
      context.kernels.turn(op.x + (row * op.heads + h) * op.head_dim, op.cos + row * half, op.sin + row * half, half);
  });
}

Status swiglu(const Context& context, const Gated& op) {
  return for_units(context, op.count, [&](size_t first, size_t count) {
    context.kernels.swiglu(op.gate + first, op.up + first, count, op.out + first);
  });
}

Status geglu(const Context& context, const Gated& op) {
  return for_units(context, op.count, [&](size_t first, size_t count) {
    context.kernels.geglu(op.gate + first, op.up + first, count, op.out + first);
  });
}

Status scale(const Context& context, const Scale& op) {
  return for_units(context, op.count, [&](size_t first, size_t count) {
    if (op.softcap > 0)
      context.kernels.softcap(op.x + first, count, op.factor, op.softcap);
    else
      context.kernels.multiply(op.x + first, count, op.factor);
  });
}

Status columns(const Context& context, const Columns& op) {
  return parallel_for(context, op.rows, [&](size_t row, int) {
    std::copy_n(op.x + row * op.width + op.from, op.cols, op.out + row * op.cols);
  });
}

Status add(const Context& context, const Add& op) {
  return for_units(context, op.count,
                   [&](size_t first, size_t count) { context.kernels.add(op.x + first, count, op.to + first); });
}

}  // namespace hqq::core
