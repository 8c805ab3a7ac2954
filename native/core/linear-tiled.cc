#include <algorithm>
#include <cstring>

#include "codes.h"
#include "operations.h"
#include "parallel.h"
#include "scratch.h"

namespace hqq::core {
namespace {

// Weights of each output that are dequantized together: with a panel's outputs 8 KiB of floats.
constexpr size_t kDepth = kernels::kChainQuads * 4;

}  // namespace

Status linear_tiled(const Context& context, const LinearTiled& op) {
  const kernels::KernelTable& kernels = context.kernels;
  const auto affine = kernels.affine[static_cast<size_t>(DType::f32)];
  const auto affine_lanes = kernels.affine_lanes[static_cast<size_t>(DType::f32)];
  const PackedCodes packed{op.packed, op.format, op.cols, op.step};
  const size_t depths = (op.in_features + kDepth - 1) / kDepth, panels = (op.out_features + kPanel - 1) / kPanel;

  Scratch shared, own;
  const size_t x_at = shared.reserve<float>(depths * op.batch * kDepth);
  const size_t sums_at = own.reserve<float>(op.batch * kPanel), codes_at = own.reserve<uint8_t>(kDepth);
  const size_t rows_at = own.reserve<float>(kPanel * kDepth), tile_at = own.reserve<float>(kPanel * kDepth);
  shared.allocate(1), own.allocate(context.threads);
  auto* x = shared.at<float>(x_at, 0);  // [depths, quads, batch, 4]
  std::fill_n(x, depths * op.batch * kDepth, 0.0f);
  for (size_t row = 0; row < op.batch; ++row)
    for (size_t i = 0; i < op.in_features; i += 4)
      std::copy_n(op.x + row * op.in_features + i, std::min<size_t>(4, op.in_features - i),
                  x + (i / 4 * op.batch + row) * 4);
  float plain[2 * kPanel] = {};  // the tile holds weights: their scale is 1, their zero 0
  std::fill_n(plain, kPanel, 1.0f);

  // to = weights [first, first + count) of the matrix in its own order
  const auto dequantize = [&](size_t first, size_t count, uint8_t* codes, float* to) {
    while (count > 0) {
      const size_t row = first / op.cols, col = first % op.cols, n = std::min(count, op.cols - col);
      packed.read(row, col, n, codes);
      if (op.axis == 1)
        affine(codes, n, op.scale[row], op.zero[row], to);
      else
        affine_lanes(codes, n, op.scale + col, op.zero + col, to);
      first += n, count -= n, to += n;
    }
  };

  return parallel_for(context, panels, [&](size_t panel, int slot) {
    auto* sums = own.at<float>(sums_at, slot);
    auto* rows = own.at<float>(rows_at, slot);
    auto* tile = own.at<float>(tile_at, slot);
    const size_t first = panel * kPanel, outputs = std::min(kPanel, op.out_features - first);
    std::fill_n(sums, op.batch * kPanel, 0.0f);
    for (size_t d = 0; d < depths; ++d) {
      std::fill_n(rows, kPanel * kDepth, 0.0f);
      const size_t count = std::min(kDepth, op.in_features - d * kDepth);
      for (size_t j = 0; j < outputs; ++j)
        dequantize((first + j) * op.in_features + d * kDepth, count, own.at<uint8_t>(codes_at, slot),
                   rows + j * kDepth);
      kernels.transpose_u32(reinterpret_cast<const uint32_t*>(rows), kPanel, kDepth, kDepth,
                            reinterpret_cast<uint32_t*>(tile), kPanel);
      kernels.linear.tile_rows(
          tile, {plain, 0, {x + d * op.batch * kDepth, nullptr, nullptr, nullptr}, op.batch, kDepth / 4}, sums);
    }
    for (size_t row = 0; row < op.batch; ++row)
      for (size_t j = 0; j < outputs; ++j)
        op.out[row * op.out_features + first + j] =
            op.bias == nullptr ? sums[row * kPanel + j] : sums[row * kPanel + j] + op.bias[first + j];
  });
}

}  // namespace hqq::core
