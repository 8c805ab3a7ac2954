#pragma once
#include <cstddef>

#include "operations.h"

// What `quantize` reads after a block: kernels ask for it while they solve that block. Rows of weights are too short,
// and too far apart, for processors to see it coming.
namespace hqq::core {

inline const std::byte* offset_bytes(const void* base, size_t elements, size_t element_bytes) {
  return static_cast<const std::byte*>(base) + elements * element_bytes;
}
inline std::byte* offset_bytes(void* base, size_t elements, size_t element_bytes) {
  return static_cast<std::byte*>(base) + elements * element_bytes;
}

// Axis 1: the same rows of the next unit.
inline kernels::Ahead ahead_of_rows(const Quantize& op, size_t group) {
  if (group + 2 * op.block > op.rows) return {};
  const size_t bytes = op.cols * bytes_of(op.dtype);
  return {offset_bytes(op.weights, (group + op.block) * op.cols, bytes_of(op.dtype)), bytes, bytes};
}

// Axis 0: while column c of a strip and those beside it are solved, a piece of sixteen rows of the next strip.
inline kernels::Ahead ahead_of_columns(const Quantize& op, size_t strip, size_t first, size_t c) {
  using kernels::kLanes;
  const size_t parts = strip / kLanes, sixteens = op.rows / kLanes, element = bytes_of(op.dtype);
  if (op.block != kLanes || op.rows % kLanes != 0 || parts < sixteens || first + 2 * strip > op.cols) return {};
  const size_t pieces = parts / sixteens, part = c / kLanes, row = part / pieces * kLanes, width = strip / pieces;
  if (row >= op.rows) return {};
  const size_t at = row * op.cols + first + strip + part % pieces * width;
  return {offset_bytes(op.weights, at, element), width * element, op.cols * element};
}

}  // namespace hqq::core
