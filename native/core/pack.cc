#include <algorithm>
#include <vector>

#include "operations.h"
#include "pages.h"
#include "parallel.h"
#include "tiles.h"

namespace hqq::core {

Status pack(const Context& context, const Pack& op) {
  const FormatRow& format = row_of(op.format);
  const auto pack_row = context.kernels.pack_row[static_cast<size_t>(op.format)];
  const Tiles tiles(op.step, op.cols, format.fields);
  prefer_large_pages(op.packed, op.step * op.cols * format.word_bytes);
  const std::vector<uint8_t> no_codes(tiles.width());  // stands for rows past the last
  return parallel_for(context, tiles.count(), [&](size_t tile, int) {
    tiles.for_each_row(tile, [&](size_t r, size_t c, size_t count) {
      const uint8_t* fields[kMaxFields];
      for (size_t f = 0; f < format.fields; ++f) {
        const size_t row = f * op.step + r;
        fields[f] = row < op.rows ? op.codes + row * op.cols + c : no_codes.data();
      }
      pack_row(fields, count, static_cast<std::byte*>(op.packed) + (r * op.cols + c) * format.word_bytes);
    });
  });
}

Status unpack(const Context& context, const Pack& op) {
  const FormatRow& format = row_of(op.format);
  const auto unpack_row = context.kernels.unpack_row[static_cast<size_t>(op.format)];
  const Tiles tiles(op.step, op.cols, format.fields);
  prefer_large_pages(op.codes, op.rows * op.cols);
  return parallel_for(context, tiles.count(), [&](size_t tile, int) {
    tiles.for_each_row(tile, [&](size_t r, size_t c, size_t count) {
      uint8_t* fields[kMaxFields];
      int present = 0;
      for (size_t row = r; row < op.rows && present < static_cast<int>(format.fields); row += op.step)
        fields[present++] = op.codes + row * op.cols + c;
      unpack_row(static_cast<const std::byte*>(op.packed) + (r * op.cols + c) * format.word_bytes, count, present,
                 fields);
    });
  });
}

}  // namespace hqq::core
