#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "simd.h"

// Four lanes in plain C++: vectors of the compiler's own where it has them, so that it has one operation to look at
// instead of four; it has them for every processor. Elsewhere arrays. Comparisons give all bits of a lane, or none.
namespace hqq::simd::four {

#if defined(__GNUC__) && !defined(HQQ_PLAIN_ARRAYS)

using F32 = float __attribute__((vector_size(16)));
using I32 = int32_t __attribute__((vector_size(16)));
using U32 = uint32_t __attribute__((vector_size(16)));
using U8 = uint8_t __attribute__((vector_size(16)));

template <class To, class From>
HQQ_INLINE To convert(From v) {
  return __builtin_convertvector(v, To);
}
template <class V>
HQQ_INLINE V select(I32 mask, V a, V b) {
  return mask ? a : b;
}

#else

template <class T, size_t N>
struct Array {
  T lane[N];
  T& operator[](size_t i) { return lane[i]; }
  T operator[](size_t i) const { return lane[i]; }
};
using F32 = Array<float, 4>;
using I32 = Array<int32_t, 4>;
using U32 = Array<uint32_t, 4>;
using U8 = Array<uint8_t, 16>;

template <class To, size_t N, class Fn>
HQQ_INLINE To each(Fn fn) {
  To to;
  for (size_t i = 0; i < N; ++i) to[i] = fn(i);
  return to;
}
#define HQQ_LANES(op)                                                                    \
  template <class T, size_t N>                                                           \
  HQQ_INLINE Array<T, N> operator op(Array<T, N> a, Array<T, N> b) {                     \
    return each<Array<T, N>, N>([&](size_t i) { return static_cast<T>(a[i] op b[i]); }); \
  }                                                                                      \
  template <class T, size_t N>                                                           \
  HQQ_INLINE Array<T, N> operator op(Array<T, N> a, T b) {                               \
    return each<Array<T, N>, N>([&](size_t i) { return static_cast<T>(a[i] op b); });    \
  }
#define HQQ_COMPARES(op)                                                  \
  template <class T>                                                      \
  HQQ_INLINE I32 operator op(Array<T, 4> a, Array<T, 4> b) {              \
    return each<I32, 4>([&](size_t i) { return a[i] op b[i] ? -1 : 0; }); \
  }                                                                       \
  template <class T>                                                      \
  HQQ_INLINE I32 operator op(Array<T, 4> a, T b) {                        \
    return each<I32, 4>([&](size_t i) { return a[i] op b ? -1 : 0; });    \
  }
HQQ_LANES(+)
HQQ_LANES(-)
HQQ_LANES(*)
HQQ_LANES(/)
HQQ_LANES(&)
HQQ_LANES(|)
HQQ_LANES(<<)
HQQ_LANES(>>)
HQQ_COMPARES(<)
HQQ_COMPARES(>)
HQQ_COMPARES(>=)
HQQ_COMPARES(==)
HQQ_COMPARES(!=)
#undef HQQ_LANES
#undef HQQ_COMPARES

template <class To, class From>
HQQ_INLINE To convert(From v) {
  return each<To, 4>([&](size_t i) { return static_cast<decltype(To{}[0] + 0)>(v[i]); });
}
template <class V>
HQQ_INLINE V select(I32 mask, V a, V b) {
  return each<V, 4>([&](size_t i) { return mask[i] != 0 ? a[i] : b[i]; });
}

#endif

template <class To, class From>
HQQ_INLINE To bits(From from) {
  To to;
  static_assert(sizeof(to) == sizeof(from));
  std::memcpy(&to, &from, sizeof(to));
  return to;
}
template <class V, class T>
HQQ_INLINE V load(const T* from) {  // from anywhere: some are bytes to whoever calls
  V v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}
template <class V, class T>
HQQ_INLINE void store(T* to, V v) {
  std::memcpy(to, &v, sizeof(v));
}
HQQ_INLINE F32 set(float x) { return F32{x, x, x, x}; }
HQQ_INLINE U32 set(uint32_t x) { return U32{x, x, x, x}; }

HQQ_INLINE F32 min(F32 a, F32 b) { return select(a < b, a, b); }
HQQ_INLINE F32 max(F32 a, F32 b) { return select(a > b, a, b); }
HQQ_INLINE F32 abs(F32 a) { return bits<F32>(bits<U32>(a) & 0x7fffffffu); }
HQQ_INLINE F32 copysign(F32 a, F32 b) { return bits<F32>((bits<U32>(a) & 0x7fffffffu) | (bits<U32>(b) & 0x80000000u)); }
// Adding and taking away 2^23 with its own sign rounds what is less to a whole number. NaN stays.
HQQ_INLINE F32 round(F32 a) {
  const F32 large = copysign(set(8388608.0f), a);
  return select(abs(a) < 8388608.0f, (a + large) - large, a);
}
// Of NaN, and of what lies outside, conversions to integers are undefined: both come up in groups that are refused
// later.
HQQ_INLINE I32 words(F32 a) { return convert<I32>(select(abs(a) < 2147483648.0f, a, set(0.0f))); }

HQQ_INLINE F32 float_of_half(U32 h) {
  const U32 sign = (h & 0x8000u) << 16u, rest = h & 0x7fffu;
  const I32 signed_rest = bits<I32>(rest);  // which compares in one instruction, as a float does
  const U32 normal = (rest << 13u) + (112u << 23);
  const U32 quiet = bits<U32>(signed_rest > 0x7c00) & (1u << 22);
  const U32 special = ((rest & 0x3ffu) << 13u) | quiet | 0x7f800000u;
  const U32 subnormal = bits<U32>(convert<F32>(signed_rest) * 5.9604644775390625e-8f);  // 2^-24
  return bits<F32>(sign | select(signed_rest >= 0x7c00, special, select(signed_rest >= 0x400, normal, subnormal)));
}
HQQ_INLINE U32 half_of_float(F32 x) {
  const U32 u = bits<U32>(x), sign = (u >> 16u) & 0x8000u, rest = u & 0x7fffffffu;
  const I32 signed_rest = bits<I32>(rest);
  const U32 nan = ((rest >> 13u) & 0x3ffu) | 0x7e00u;
  const U32 shifted = rest - (112u << 23);
  const U32 normal = (shifted + ((shifted >> 13u) & 1u) + 0xfffu) >> 13u;  // half to even
  // Subnormal: adding 0.5 leaves units of 2^-24 in the low bits of the sum, rounded by the addition itself.
  const U32 subnormal = bits<U32>(bits<F32>(rest) + 0.5f) - 0x3f000000u;
  const U32 finite = select(signed_rest >= 0x38800000, normal, subnormal);
  const U32 number = select(signed_rest >= 0x477ff000, set(0x7c00u), finite);  // rounds to 2^16: infinity
  return sign | select(signed_rest > 0x7f800000, nan, number);
}
HQQ_INLINE U32 bfloat_of_float(F32 x) {
  const U32 u = bits<U32>(x);
  const U32 number = (u + ((u >> 16u) & 1u) + 0x7fffu) >> 16u;
  return select(bits<I32>(u & 0x7fffffffu) > 0x7f800000, (u >> 16u) | 0x40u, number);
}

}  // namespace hqq::simd::four
