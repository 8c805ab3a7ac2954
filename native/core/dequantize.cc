#include "operations.h"
#include "pages.h"
#include "parallel.h"
#include "scratch.h"
#include "tiles.h"

namespace hqq::core {

Status dequantize(const Context& context, const Dequantize& op) {
  const kernels::KernelTable& kernels = context.kernels;
  const FormatRow& format = row_of(op.format);
  const auto unpack_row = kernels.unpack_row[static_cast<size_t>(op.format)];
  const auto type = static_cast<size_t>(op.dtype), arithmetic = op.round_each ? type : static_cast<size_t>(DType::f32);
  const auto affine = kernels.affine[arithmetic];
  const auto affine_lanes = kernels.affine_lanes[arithmetic];
  const auto narrow = kernels.narrow[type];
  const Tiles tiles(op.step, op.cols, format.fields);

  prefer_large_pages(op.out, op.rows * op.cols * bytes_of(op.dtype));
  Scratch scratch;
  const size_t codes_at = scratch.reserve<uint8_t>(format.fields * tiles.width());
  const size_t floats_at = scratch.reserve<float>(tiles.width());
  scratch.allocate(context.threads);

  return parallel_for(context, tiles.count(), [&](size_t tile, int slot) {
    auto* codes = scratch.at<uint8_t>(codes_at, slot);
    auto* floats = scratch.at<float>(floats_at, slot);
    uint8_t* fields[kMaxFields];
    for (size_t f = 0; f < format.fields; ++f) fields[f] = codes + f * tiles.width();
    tiles.for_each_row(tile, [&](size_t r, size_t c, size_t count) {
      const size_t left = (op.rows - r + op.step - 1) / op.step;  // fields whose row exists
      const size_t present = left < format.fields ? left : format.fields;
      unpack_row(static_cast<const std::byte*>(op.packed) + (r * op.cols + c) * format.word_bytes, count,
                 static_cast<int>(present), fields);
      for (size_t f = 0; f < present; ++f) {
        const size_t row = f * op.step + r, at = row * op.cols + c;
        float* to = op.dtype == DType::f32 ? static_cast<float*>(op.out) + at : floats;
        if (op.axis == 1) {
          affine(fields[f], count, op.scale[row], op.zero[row], to);
        } else {
          affine_lanes(fields[f], count, op.scale + c, op.zero + c, to);
        }
        if (op.dtype != DType::f32) narrow(floats, count, static_cast<uint16_t*>(op.out) + at);
      }
    });
  });
}

}  // namespace hqq::core
