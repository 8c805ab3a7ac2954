#pragma once
#include "convert.h"

namespace hqq::kernels {

// out = (code - zero) * scale, with zero, scale and the result of each operation rounded to T. With T = Float32 this is
// the library's own arithmetic; with the others it is what the reference computes in that type.
template <class V, class T>
HQQ_INLINE typename V::F32 affine_vector(typename V::F32 code, typename V::F32 scale, typename V::F32 zero) {
  return rounded<V, T>(V::mul(rounded<V, T>(V::sub(rounded<V, T>(code), zero)), scale));
}

// One scale and zero for the whole row: axis 1.
template <class V, class T>
void affine(const uint8_t* codes, size_t count, float scale, float zero, float* out) {
  const auto scale_f32 = rounded<V, T>(V::set(scale)), zero_f32 = rounded<V, T>(V::set(zero));
  for_vectors<V>(
      count, [&](size_t i) { V::store(out + i, affine_vector<V, T>(V::load_u8(codes + i), scale_f32, zero_f32)); },
      [&](size_t i, size_t rest) {
        uint8_t code_lanes[kLanes] = {};
        float lanes[kLanes];
        copy_lanes<V>(codes + i, rest, code_lanes);
        V::store(lanes, affine_vector<V, T>(V::load_u8(code_lanes), scale_f32, zero_f32));
        copy_lanes<V>(lanes, rest, out + i);
      });
}

// One scale and zero per element: axis 0.
template <class V, class T>
void affine_lanes(const uint8_t* codes, size_t count, const float* scale, const float* zero, float* out) {
  const auto at = [](const uint8_t* c, const float* s, const float* z) {
    return affine_vector<V, T>(V::load_u8(c), rounded<V, T>(V::load(s)), rounded<V, T>(V::load(z)));
  };
  for_vectors<V>(
      count, [&](size_t i) { V::store(out + i, at(codes + i, scale + i, zero + i)); },
      [&](size_t i, size_t rest) {
        uint8_t code_lanes[kLanes] = {};
        float scale_lanes[kLanes] = {}, zero_lanes[kLanes] = {}, lanes[kLanes];
        copy_lanes<V>(codes + i, rest, code_lanes);
        copy_lanes<V>(scale + i, rest, scale_lanes);
        copy_lanes<V>(zero + i, rest, zero_lanes);
        V::store(lanes, at(code_lanes, scale_lanes, zero_lanes));
        copy_lanes<V>(lanes, rest, out + i);
      });
}

}  // namespace hqq::kernels
