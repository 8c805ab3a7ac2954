#pragma once
#include <algorithm>

#include "parallel.h"

namespace hqq::core {

// Elements of a unit where every element is little work.
inline constexpr size_t kUnit = 16384;

// Calls body(first, count) for units of an array of `count` elements.
template <class Body>
Status for_units(const Context& context, size_t count, const Body& body) {
  return parallel_for(context, (count + kUnit - 1) / kUnit,
                      [&](size_t unit, int) { body(unit * kUnit, std::min(kUnit, count - unit * kUnit)); });
}

}  // namespace hqq::core
