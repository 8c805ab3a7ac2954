#pragma once
#include "fake.h"
#include "layers.h"
#include "product.h"

namespace hqq::kernels {

template <class V>
constexpr TuneKernels make_tune() {
  return {.product = make_product<V>(), .fake = make_fake<V>(), .layers = make_layer_gradients<V>()};
}

}  // namespace hqq::kernels
