#pragma once
#include "../simd/simd.h"
#include "table.h"

namespace hqq::kernels {

// The element types of DType, as memory and as what rounds a float to them.
struct Float32 {
  using Memory = float;
  template <class V>
  static typename V::F32 load(const float* p) {
    return V::load(p);
  }
  template <class V>
  static void store(float* p, typename V::F32 v) {
    V::store(p, v);
  }
};
struct Float16 {
  using Memory = uint16_t;
  template <class V>
  static typename V::F32 load(const uint16_t* p) {
    return V::load_f16(p);
  }
  template <class V>
  static void store(uint16_t* p, typename V::F32 v) {
    V::store_f16(p, v);
  }
};
struct BFloat16 {
  using Memory = uint16_t;
  template <class V>
  static typename V::F32 load(const uint16_t* p) {
    return V::load_bf16(p);
  }
  template <class V>
  static void store(uint16_t* p, typename V::F32 v) {
    V::store_bf16(p, v);
  }
};

// The nearest value of type T, as a float.
template <class V, class T>
HQQ_INLINE typename V::F32 rounded(typename V::F32 v) {
  if constexpr (sizeof(typename T::Memory) == 4) {
    return v;
  } else {
    uint16_t lanes[kLanes];
    T::template store<V>(lanes, v);
    return T::template load<V>(lanes);
  }
}

// Calls body(offset) for every full vector of `count` elements and tail(offset, rest) once for what is left.
template <class V, class Body, class Tail>
void for_vectors(size_t count, Body body, Tail tail) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i);
  if (i < count) tail(i, count - i);
}

template <class V, class T>
void copy_lanes(const T* from, size_t count, T* to) {
  for (size_t i = 0; i < count; ++i) to[i] = from[i];
}

// to = from, as float32
template <class V, class T>
void widen(const void* from, size_t count, float* to) {
  const auto* in = static_cast<const typename T::Memory*>(from);
  for_vectors<V>(
      count, [&](size_t i) { V::store(to + i, T::template load<V>(in + i)); },
      [&](size_t i, size_t rest) {
        typename T::Memory lanes[kLanes] = {};
        float wide[kLanes];
        copy_lanes<V>(in + i, rest, lanes);
        V::store(wide, T::template load<V>(lanes));
        copy_lanes<V>(wide, rest, to + i);
      });
}

// to = from, rounded to T
template <class V, class T>
void narrow(const float* from, size_t count, void* to) {
  auto* out = static_cast<typename T::Memory*>(to);
  for_vectors<V>(
      count, [&](size_t i) { T::template store<V>(out + i, V::load(from + i)); },
      [&](size_t i, size_t rest) {
        float lanes[kLanes] = {};
        typename T::Memory narrow_lanes[kLanes];
        copy_lanes<V>(from + i, rest, lanes);
        T::template store<V>(narrow_lanes, V::load(lanes));
        copy_lanes<V>(narrow_lanes, rest, out + i);
      });
}

}  // namespace hqq::kernels
