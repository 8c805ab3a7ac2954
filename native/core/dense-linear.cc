#include <algorithm>

#include "operations.h"
#include "parallel.h"
#include "scratch.h"

namespace hqq::core {
namespace {

// Weights as they lie.
Status multiply_plain(const Context& context, const DenseLinear& op) {
  // Weights of a unit stay in the second-level cache while the rows of x pass by.
  constexpr size_t kWeights = 65536, kRows = 96;
  const size_t outputs = std::clamp<size_t>(kWeights / op.in_features, 8, 64);
  const size_t across = (op.out_features + outputs - 1) / outputs, down = (op.batch + kRows - 1) / kRows;
  return parallel_for(context, across * down, [&](size_t unit, int) {
    const size_t o = unit % across * outputs, b = unit / across * kRows;
    context.kernels.dense({.x = op.x + b * op.in_features,
                           .w = op.weights + o * op.in_features,
                           .bias = op.bias == nullptr ? nullptr : op.bias + o,
                           .out = op.out + b * op.out_features + o,
                           .batch = std::min(kRows, op.batch - b),
                           .outputs = std::min(outputs, op.out_features - o),
                           .count = op.in_features,
                           .x_stride = op.in_features,
                           .w_stride = op.in_features,
                           .out_stride = op.out_features});
  });
}

// Rows and outputs from which on it pays to pack them.
constexpr size_t kManyRows = 96, kManyOutputs = 48;

// What is packed at once: rows of x that stay in the second-level cache, weights that threads share.
constexpr size_t kLeftFloats = 65536, kRightFloats = 262144, kMostRows = 192;

Status multiply_packed(const Context& context, const DenseLinear& op) {
  const kernels::PackedDenseKernels& kernels = context.kernels.packed_dense;
  const size_t count = kernels::padded(op.in_features);
  const auto tiles_of = [](size_t size, size_t tile) { return (size + tile - 1) / tile; };
  const size_t all_tiles = tiles_of(op.out_features, kernels.cols);
  const size_t band_tiles = std::clamp<size_t>(kRightFloats / (count * kernels.cols), 1, all_tiles);
  const size_t rows = std::clamp<size_t>(kLeftFloats / count, kernels.rows, kMostRows) / kernels.rows * kernels.rows;
  const size_t down = tiles_of(op.batch, rows);
  Scratch shared, own;
  const size_t right_at = shared.reserve<float>(band_tiles * kernels.cols * count);
  const size_t left_at = own.reserve<float>(rows * count);
  shared.allocate(1), own.allocate(context.threads);
  auto* const right = shared.at<float>(right_at, 0);
  for (size_t first = 0; first < all_tiles; first += band_tiles) {
    const size_t tiles = std::min(band_tiles, all_tiles - first);
    const Status packed = parallel_for(context, tiles, [&](size_t tile, int) {
      const size_t o = (first + tile) * kernels.cols;
      kernels.pack_right(op.weights + o * op.in_features, op.in_features, std::min(kernels.cols, op.out_features - o),
                         op.in_features, right + tile * kernels.cols * count);
    });
    if (packed != Status::ok) return packed;
    // In halves, so that threads end together.
    const size_t each = (tiles + 1) / 2, across = tiles_of(tiles, each);
    const Status status = parallel_for(context, down * across, [&](size_t unit, int slot) {
      const size_t b = unit / across * rows, some = std::min(rows, op.batch - b), from = unit % across * each;
      auto* const left = own.at<float>(left_at, slot);
      kernels.pack_left(op.x + b * op.in_features, op.in_features, some, op.in_features, left);
      for (size_t tile = from; tile < std::min(tiles, from + each); ++tile) {
        const size_t o = (first + tile) * kernels.cols;
        kernels.multiply({.left = left,
                          .right = right + tile * kernels.cols * count,
                          .bias = op.bias == nullptr ? nullptr : op.bias + o,
                          .out = op.out + b * op.out_features + o,
                          .rows = some,
                          .cols = std::min(kernels.cols, op.out_features - o),
                          .count = op.in_features,
                          .stride = op.out_features});
      }
    });
    if (status != Status::ok) return status;
  }
  return Status::ok;
}

}  // namespace

Status dense_linear(const Context& context, const DenseLinear& op) {
  const bool packs = op.batch >= kManyRows && op.out_features >= kManyOutputs;
  return (packs ? multiply_packed : multiply_plain)(context, op);
}

}  // namespace hqq::core
