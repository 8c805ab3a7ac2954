#include <algorithm>

#include "operations.h"
#include "parallel.h"
#include "units.h"

namespace hqq::core {
namespace {

// A unit: so many columns of so many rows, whose turned rows are whole lines of the cache.
constexpr size_t kRows = 64, kCols = 1024;
// Halves that are turned at once: they lie side by side meanwhile, since rows far apart push each other out of the
// cache.
constexpr size_t kTile = 32;

void turn_halves(const uint16_t* from, size_t rows, size_t cols, size_t from_stride, uint16_t* to, size_t to_stride) {
  uint16_t tile[kTile][kTile];
  for (size_t r = 0; r < rows; r += kTile) {
    const size_t height = std::min(kTile, rows - r);
    for (size_t c = 0; c < cols; c += kTile) {
      const size_t width = std::min(kTile, cols - c);
      for (size_t i = 0; i < height; ++i) std::copy_n(from + (r + i) * from_stride + c, width, tile[i]);
      for (size_t k = 0; k < width; ++k)
        for (size_t i = 0; i < height; ++i) to[(c + k) * to_stride + r + i] = tile[i][k];
    }
  }
}

}  // namespace

Status turn(const Context& context, const Turn& op) {
  const size_t across = pieces_of(op.cols, kCols);
  const auto turn_part = [&op](auto turned, const auto* from, auto* to, size_t row, size_t col) {
    turned(from + row * op.stride + op.first + col, std::min(kRows, op.rows - row), std::min(kCols, op.cols - col),
           op.stride, to + col * op.rows + row, op.rows);
  };
  return parallel_for(context, across * pieces_of(op.rows, kRows), [&](size_t unit, int) {
    const size_t row = unit / across * kRows, col = unit % across * kCols;
    if (bytes_of(op.dtype) == sizeof(uint16_t)) {
      turn_part(turn_halves, static_cast<const uint16_t*>(op.from), static_cast<uint16_t*>(op.to), row, col);
    } else {
      turn_part(context.kernels.transpose_u32, static_cast<const uint32_t*>(op.from), static_cast<uint32_t*>(op.to),
                row, col);
    }
  });
}

}  // namespace hqq::core
