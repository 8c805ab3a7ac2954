#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "simd.h"

// Integer dot products of avx2.h's wrappers V.
namespace hqq::simd {

// One row after the other: GCC else loads x for several first, and sums lie in memory where registers would do.
template <class Run>
HQQ_INLINE Run in_order(Run run) {
#if defined(__GNUC__) && !defined(__clang__)
  asm volatile("" : "+x"(run.lo), "+x"(run.hi));
#endif
  return run;
}

// vpdpbusd adds the four products of a lane, of a byte without and one with sign, to it in 32 bits. Only for the file
// that is compiled for it.
template <class V>
struct Avx2VnniDot;
#if defined(HQQ_AVX_VNNI)
template <class V>
struct Avx2VnniDot {
  using U32 = typename V::U32;
  using F32 = typename V::F32;
  static constexpr size_t kRun = 1024;
  using Codes = U32;
  using Sum = U32;
  using Run = U32;

  static Sum zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static Run start(Sum sum) { return sum; }
  static Codes codes(U32 w) { return w; }
  static Run add(Run run, const Codes& c, const int8_t* x) {
    const __m256i four = _mm256_set1_epi32(*reinterpret_cast<const int*>(x));
    return in_order(Run{dpbusd(run.lo, c.lo, four), dpbusd(run.hi, c.hi, four)});
  }
  static Sum fold(Sum, Run run) { return run; }
  static F32 total(Sum sum, int) { return V::to_f32(sum); }

 private:
  static __m256i dpbusd(__m256i sum, __m256i codes, __m256i x) { return _mm256_dpbusd_avx_epi32(sum, codes, x); }
};
#endif

// maddubs adds two products of a byte without and one with sign in 16 bits, and saturates there. It never comes to
// that: pairs of codes are summed in runs that stay below 2^15; where one pair may be more, codes are taken off 128
// first, so that it is at most 2 * 128 * 127, and widened at once.
template <class V, int Bits>
struct Avx2MaddubsDot {
  using U32 = typename V::U32;
  using F32 = typename V::F32;
  static constexpr int kLargestPair = 2 * 127 * ((1 << Bits) - 1);
  static constexpr bool kSigned = kLargestPair > 32767;
  static constexpr size_t kRun = kSigned ? 1 : 32767 / kLargestPair;
  struct Codes {
    __m256i lo, hi, size_lo, size_hi;  // sizes: absolute values, where signed
  };
  struct Sum {
    __m256i lo, hi;
  };
  using Run = Sum;

  static Sum zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static Run start(Sum) { return zero(); }
  static Codes codes(U32 w) {
    if constexpr (!kSigned) return {w.lo, w.hi, w.lo, w.hi};
    const __m256i middle = _mm256_set1_epi8(-128);
    const __m256i lo = _mm256_xor_si256(w.lo, middle), hi = _mm256_xor_si256(w.hi, middle);
    return {lo, hi, _mm256_abs_epi8(lo), _mm256_abs_epi8(hi)};
  }
  static Run add(Run run, const Codes& c, const int8_t* x) {
    const __m256i four = _mm256_set1_epi32(*reinterpret_cast<const int*>(x));
    if constexpr (kSigned) {
      return {_mm256_maddubs_epi16(c.size_lo, _mm256_sign_epi8(four, c.lo)),
              _mm256_maddubs_epi16(c.size_hi, _mm256_sign_epi8(four, c.hi))};
    } else {
      run = {_mm256_add_epi16(run.lo, _mm256_maddubs_epi16(c.lo, four)),
             _mm256_add_epi16(run.hi, _mm256_maddubs_epi16(c.hi, four))};
      return in_order(run);
    }
  }
  static Sum fold(Sum sum, Run run) {
    const __m256i one = _mm256_set1_epi16(1);
    return {_mm256_add_epi32(sum.lo, _mm256_madd_epi16(run.lo, one)),
            _mm256_add_epi32(sum.hi, _mm256_madd_epi16(run.hi, one))};
  }
  static F32 total(Sum sum, int sum_of_x) {
    if constexpr (kSigned) {
      const __m256i taken = _mm256_set1_epi32(128 * sum_of_x);
      sum = {_mm256_add_epi32(sum.lo, taken), _mm256_add_epi32(sum.hi, taken)};
    }
    return V::to_f32(U32{sum.lo, sum.hi});
  }
};

}  // namespace hqq::simd
