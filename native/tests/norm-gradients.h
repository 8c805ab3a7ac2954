#pragma once
#include "../core/layer-gradients.h"
#include "layers.h"

namespace hqq::test {

// What the gradients of both norms are tested with; a case adds the operation and what it should give.
struct NormGradientCase {
  size_t rows, cols;
  bool adds;
  Floats x, weight, gradient, before;

  static NormGradientCase random(Random& random) {
    NormGradientCase c{1 + random.below(4), random.pick(kOddSizes), random.chance(50), {}, {}, {}, {}};
    c.x = Floats(random, c.rows * c.cols, 1), c.weight = Floats(random, c.cols, 1);
    c.gradient = Floats(random, c.rows * c.cols, 1), c.before = Floats(random, c.rows * c.cols, 1);
    return c;
  }
  std::string describe() const { return text("%zu x %zu%s", rows, cols, adds ? ", added" : ""); }
  Buffers outputs(uint8_t fill) const { return one_output(rows * cols, fill); }
  // The operation on some of the rows.
  core::NormGradient rows_of(size_t first, size_t count, float epsilon, Buffers& outputs) const {
    const size_t at = first * cols;
    auto* out = outputs[0].at<float>();
    if (adds) std::copy_n(before.data() + at, count * cols, out);
    return {count, cols, epsilon, x.data() + at, weight.data(), gradient.data() + at, out, adds};
  }
};

}  // namespace hqq::test
