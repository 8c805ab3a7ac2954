#pragma once
#include "affine.h"
#include "attention.h"
#include "bits.h"
#include "blocks/encode.h"
#include "convert.h"
#include "dense.h"
#include "encoder-layers.h"
#include "extremes.h"
#include "layers.h"
#include "linear.h"
#include "packed.h"
#include "solve/solvers.h"
#include "table.h"
#include "tune/tune.h"

namespace hqq::kernels {

// Every kernel, once; those of codes once for each format. A new one is a line here and a line in table.h.
template <simd::Simd V, class... F>
constexpr KernelTable make_table_for(FormatList<F...> formats) {
  return {
      .isa = V::kName,
      .solvers = Solvers<V>::kRows,
      .encode_block = &encode_block<V>,
      .encode_blocks = &encode_blocks<V>,
      .extremes = {&extremes_of<V, Float32>, &extremes_of<V, Float16>, &extremes_of<V, BFloat16>},
      .take_extremes = &take_extremes<V>,
      .pack_row = {&pack_row<V, F>...},
      .unpack_row = {&unpack_row<V, F>...},
      .affine = {&affine<V, Float32>, &affine<V, Float16>, &affine<V, BFloat16>},
      .affine_lanes = {&affine_lanes<V, Float32>, &affine_lanes<V, Float16>, &affine_lanes<V, BFloat16>},
      .widen = {&widen<V, Float32>, &widen<V, Float16>, &widen<V, BFloat16>},
      .narrow = {&narrow<V, Float32>, &narrow<V, Float16>, &narrow<V, BFloat16>},
      .transpose_u8 = &transpose<V, uint8_t>,
      .transpose_u32 = &transpose<V, uint32_t>,
      .dense = &dense<V>,
      .packed_dense = make_packed_dense<V>(),
      .sum_of_squares = &sum_of_squares<V>,
      .scale = &scale<V>,
      .turn = &turn<V>,
      .scores = {&scores<V, FloatCache<V>>, &scores<V, HalfCache<V>>, &scores<V, ByteCache<V>>},
      .softmax = &softmax<V>,
      .weighted_sums = {&weighted_sums<V, FloatCache<V>>, &weighted_sums<V, HalfCache<V>>,
                        &weighted_sums<V, ByteCache<V>>},
      .swiglu = &swiglu<V>,
      .geglu = &geglu<V>,
      .multiply = &multiply<V>,
      .softcap = &softcap<V>,
      .add = &add<V>,
      .encoder = make_encoder<V>(),
      .linear = make_linear<V>(formats),
      .tune = make_tune<V>(),
  };
}

template <simd::Simd V>
constexpr KernelTable make_table() {
  return make_table_for<V>(Formats{});
}

}  // namespace hqq::kernels
