#pragma once
#include "affine.h"
#include "attention.h"
#include "bits.h"
#include "convert.h"
#include "dense.h"
#include "layers.h"
#include "linear.h"
#include "solve.h"
#include "table.h"

namespace hqq::kernels {

// Every kernel, once. A new one is a line here and a line in table.h.
template <simd::Simd V>
constexpr KernelTable make_table() {
#define HQQ_PACK(name, word, bits) &pack_row<V, PackFormat<word, bits>>,
#define HQQ_UNPACK(name, word, bits) &unpack_row<V, PackFormat<word, bits>>,
  return {
      .isa = V::kName,
      .solve_block = &solve_block<V>,
      .pack_row = {HQQ_FOR_EACH_FORMAT(HQQ_PACK)},
      .unpack_row = {HQQ_FOR_EACH_FORMAT(HQQ_UNPACK)},
      .affine = {&affine<V, Float32>, &affine<V, Float16>, &affine<V, BFloat16>},
      .affine_lanes = {&affine_lanes<V, Float32>, &affine_lanes<V, Float16>, &affine_lanes<V, BFloat16>},
      .widen = {&widen<V, Float32>, &widen<V, Float16>, &widen<V, BFloat16>},
      .narrow = {&narrow<V, Float32>, &narrow<V, Float16>, &narrow<V, BFloat16>},
      .transpose_u8 = &transpose<V, uint8_t>,
      .transpose_u32 = &transpose<V, uint32_t>,
      .dense = &dense<V>,
      .sum_of_squares = &sum_of_squares<V>,
      .scale = &scale<V>,
      .turn = &turn<V>,
      .scores = &scores<V>,
      .softmax = &softmax<V>,
      .weighted_sums = &weighted_sums<V>,
      .swiglu = &swiglu<V>,
      .add = &add<V>,
      .linear = make_linear<V>(),
  };
#undef HQQ_PACK
#undef HQQ_UNPACK
}

}  // namespace hqq::kernels
