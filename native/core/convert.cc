#include <algorithm>
#include <cstring>

#include "operations.h"
#include "parallel.h"
#include "scratch.h"

namespace hqq::core {

Status convert(const Context& context, const Convert& op) {
  constexpr size_t kUnit = 65536;  // elements: their bytes stay in the second-level cache on the way through float32
  const size_t from_bytes = bytes_of(op.from_dtype), to_bytes = bytes_of(op.to_dtype);
  const auto widen = context.kernels.widen[static_cast<size_t>(op.from_dtype)];
  const auto narrow = context.kernels.narrow[static_cast<size_t>(op.to_dtype)];
  const bool through_floats = op.from_dtype != DType::f32 && op.to_dtype != DType::f32 && op.from_dtype != op.to_dtype;
  Scratch scratch;
  const size_t floats_at = scratch.reserve<float>(through_floats ? kUnit : 0);
  scratch.allocate(context.threads);
  return parallel_for(context, (op.count + kUnit - 1) / kUnit, [&](size_t unit, int slot) {
    const size_t first = unit * kUnit, count = std::min(kUnit, op.count - first);
    const std::byte* from = static_cast<const std::byte*>(op.from) + first * from_bytes;
    std::byte* to = static_cast<std::byte*>(op.to) + first * to_bytes;
    if (op.from_dtype == op.to_dtype) {
      std::memcpy(to, from, count * from_bytes);
    } else if (op.to_dtype == DType::f32) {
      widen(from, count, reinterpret_cast<float*>(to));
    } else if (op.from_dtype == DType::f32) {
      narrow(reinterpret_cast<const float*>(from), count, to);
    } else {
      auto* const floats = scratch.at<float>(floats_at, slot);
      widen(from, count, floats);
      narrow(floats, count, to);
    }
  });
}

}  // namespace hqq::core
