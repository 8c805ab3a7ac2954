#pragma once
#include "fake.h"
#include "product.h"

namespace hqq::kernels {

template <class V>
constexpr TuneKernels make_tune() {
  return {.product = make_product<V>(), .fake = make_fake<V>()};
}

}  // namespace hqq::kernels
