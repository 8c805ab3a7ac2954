#include <algorithm>

#include "layers.h"
#include "scratch.h"
#include "units.h"

namespace hqq::core {
namespace {

// Weights as they lie.
Status multiply_plain(const Context& context, const DenseLinear& op) {
  // Weights of a unit stay in the second-level cache while the rows of x pass by.
  constexpr size_t kWeights = 65536, kRows = 96;
  const size_t outputs = std::clamp<size_t>(kWeights / op.in_features, 8, 64);
  const size_t across = pieces_of(op.out_features, outputs), down = pieces_of(op.batch, kRows);
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

// Rows of a unit: such that x stays in the second-level cache while weights pass by.
constexpr size_t kLeftFloats = 98304, kMostRows = 96;

// Weights that are packed at once, by all threads for all threads.
constexpr size_t kRightFloats = size_t{1} << 21;

Status multiply_packed(const Context& context, const DenseLinear& op) {
  const kernels::PackedDenseKernels& kernels = context.kernels.packed_dense;
  const size_t count = kernels::padded(op.in_features);
  const Runs runs(op.batch, kernels.rows, std::clamp<size_t>(kLeftFloats / count, kernels.rows, kMostRows),
                  context.threads);
  const size_t all_tiles = pieces_of(op.out_features, kernels.cols);
  const size_t band_tiles = std::clamp<size_t>(kRightFloats / (count * kernels.cols), 1, all_tiles);
  Scratch shared, own;
  const size_t right_at = shared.reserve<float>(band_tiles * kernels.cols * count);
  const size_t left_at = own.reserve<float>(runs.room() * count);
  shared.allocate(1), shared.prefer_large_pages(), own.allocate(context.threads);
  auto* const right = shared.at<float>(right_at, 0);
  for (size_t first = 0; first < all_tiles; first += band_tiles) {
    const size_t tiles = std::min(band_tiles, all_tiles - first);
    const Status packed = parallel_for(context, tiles, [&](size_t tile, int) {
      const size_t o = (first + tile) * kernels.cols;
      kernels.pack_right(op.weights + o * op.in_features, op.in_features, std::min(kernels.cols, op.out_features - o),
                         op.in_features, right + tile * kernels.cols * count);
    });
    if (packed != Status::ok) return packed;
    const size_t parts = runs.parts(tiles);
    const Status status = parallel_for(context, runs.count() * parts, [&](size_t unit, int slot) {
      const size_t b = runs.begin(unit / parts), rows = runs.rows(unit / parts), part = unit % parts;
      auto* const left = own.at<float>(left_at, slot);
      kernels.pack_left(op.x + b * op.in_features, op.in_features, rows, op.in_features, left);
      for (size_t tile = part * tiles / parts; tile < (part + 1) * tiles / parts; ++tile) {
        const size_t o = (first + tile) * kernels.cols;
        kernels.multiply({.left = left,
                          .right = right + tile * kernels.cols * count,
                          .bias = op.bias == nullptr ? nullptr : op.bias + o,
                          .out = op.out + b * op.out_features + o,
                          .rows = rows,
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
