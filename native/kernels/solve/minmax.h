#pragma once
#include "range.h"

namespace hqq::kernels {

// Keeps the range: round to nearest. It reads no parameters.
template <class V>
struct MinMax : FromRange {
  static constexpr const char* kName = "minmax";
  static constexpr bool takes(size_t count) { return count == 0; }

  struct Parameters {};
  static Parameters read(const SolveOptions&) { return {}; }
  static constexpr int iterations(const Parameters&) { return 0; }
  static Parameters round(const Parameters& p, int) { return p; }

  template <class Group>
  static bool step(const Group&, const SolveOptions&, const Parameters&) {
    return false;
  }
};

}  // namespace hqq::kernels
