#include <algorithm>
#include <limits>

#include "operations.h"
#include "parallel.h"
#include "scratch.h"

namespace hqq::core {
namespace {

// Weights of a unit of work: large enough that handing it out costs nothing.
constexpr size_t kUnitWeights = 65536;
// Columns of a unit on axis 0: a few cache lines of every row.
constexpr size_t kUnitColumns = 1024;

const std::byte* at(const Extremes& op, size_t element) {
  return static_cast<const std::byte*>(op.weights) + element * bytes_of(op.dtype);
}

Status rows_of(const Context& context, const Extremes& op) {
  const size_t height = std::max<size_t>(1, kUnitWeights / op.cols);
  const auto extremes = context.kernels.extremes[static_cast<size_t>(op.dtype)];
  return parallel_for(context, (op.rows + height - 1) / height, [&](size_t unit, int) {
    const size_t first = unit * height, count = std::min(height, op.rows - first);
    extremes(at(op, first * op.cols), count, op.cols, op.least + first, op.most + first);
  });
}

Status columns_of(const Context& context, const Extremes& op) {
  const auto widen = context.kernels.widen[static_cast<size_t>(op.dtype)];
  Scratch scratch;
  const size_t row_at = scratch.reserve<float>(kUnitColumns);
  scratch.allocate(context.threads);
  return parallel_for(context, (op.cols + kUnitColumns - 1) / kUnitColumns, [&](size_t unit, int slot) {
    const size_t first = unit * kUnitColumns, count = std::min(kUnitColumns, op.cols - first);
    float* row_floats = scratch.at<float>(row_at, slot);
    std::fill_n(op.least + first, count, std::numeric_limits<float>::infinity());
    std::fill_n(op.most + first, count, -std::numeric_limits<float>::infinity());
    for (size_t row = 0; row < op.rows; ++row) {
      widen(at(op, row * op.cols + first), count, row_floats);
      context.kernels.take_extremes(row_floats, count, op.least + first, op.most + first);
    }
  });
}

}  // namespace

Status extremes(const Context& context, const Extremes& op) {
  return op.axis == 1 ? rows_of(context, op) : columns_of(context, op);
}

}  // namespace hqq::core
