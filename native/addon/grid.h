#pragma once
#include <string>

#include "../core/operations.h"
#include "args.h"

namespace hqq::addon {

// A grouped matrix, how its codes are packed, and where the groups' scales and zeros are.
struct Grid {
  size_t rows, cols, step;
  Format format;

  explicit Grid(const Args& args)
      : rows(args.dimension("rows")),
        cols(args.dimension("cols")),
        step(args.dimension("step")),
        format(args.format("format")) {
    if (rows > uint64_t{step} * row_of(format).fields) {
      throw args.range_error("Expected " + std::to_string(rows) + " rows to fit " + std::to_string(step) +
                             " packed rows of " + std::to_string(row_of(format).fields) + " fields.");
    }
  }

  uint64_t weights() const { return uint64_t{rows} * cols; }
  uint64_t words() const { return uint64_t{step} * cols; }
  uint64_t groups(int axis) const { return axis == 1 ? rows : cols; }
};

inline core::Quantized read_quantized(Args& args) {
  const Grid grid(args);
  core::Quantized q{};
  q.rows = grid.rows;
  q.cols = grid.cols;
  q.step = grid.step;
  q.format = grid.format;
  q.packed = args.words("packed", q.format, grid.words());
  q.axis = static_cast<int>(args.integer("axis", 0, 1));
  q.scale = args.array<float>("scale", grid.groups(q.axis));
  q.zero = args.array<float>("zero", grid.groups(q.axis));
  return q;
}

}  // namespace hqq::addon
