#pragma once
#include <immintrin.h>

#include <cstdint>
#include <type_traits>

#include "simd.h"

// MSVC has the instruction's intrinsic for every target.
#if defined(__AVX512VNNI__) || defined(_MSC_VER)
#define HQQ_AVX512_VNNI
#endif

namespace hqq::simd {

// AVX-512 F, BW, DQ, VL: one zmm register. With Vnni, integer dot products use AVX512_VNNI: a type of its own, so that
// no function of one is ever taken for the other's.
template <bool Vnni>
struct Avx512Of {
#if !defined(HQQ_AVX512_VNNI)
  static_assert(!Vnni, "Avx512Vnni is for files that are compiled for AVX512_VNNI");
#endif
  static constexpr const char* kName = "avx512";
  static constexpr const char* kDot = Vnni ? "vnni" : "maddubs";
  static constexpr size_t kBytes = 64;
  static constexpr size_t kTileRows = 12, kTileRows8 = 8, kTilePanels = 2, kRowPanels = 2, kFewRows = Vnni ? 8 : 4;
  using F32 = __m512;
  struct U32 {
    __m512i v;
  };
  struct U8 {
    __m512i v;
  };

  static F32 load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F32 v) { _mm512_storeu_ps(p, v); }
  static F32 set(float x) { return _mm512_set1_ps(x); }
  static F32 load_u8(const uint8_t* p) { return _mm512_cvtepi32_ps(words_of_u8(p).v); }
  static void store_u8(uint8_t* p, F32 v) { store_words_u8(p, {_mm512_cvttps_epi32(v)}); }
  static F32 load_f16(const uint16_t* p) { return _mm512_cvtph_ps(load256(p)); }
  static F32 load_bf16(const uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load256(p)), 16));
  }
  static void store_f16(uint16_t* p, F32 v) { store256(p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT)); }
  static void store_bf16(uint16_t* p, F32 v) {
    const __m512i u = _mm512_castps_si512(v), top = _mm512_srli_epi32(u, 16);
    const __m512i odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    const __m512i quiet = _mm512_or_si512(top, _mm512_set1_epi32(0x40));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    store256(p, _mm512_cvtepi32_epi16(_mm512_mask_blend_epi32(nan, rounded, quiet)));
  }

  static F32 add(F32 a, F32 b) { return _mm512_add_ps(a, b); }
  static F32 sub(F32 a, F32 b) { return _mm512_sub_ps(a, b); }
  static F32 mul(F32 a, F32 b) { return _mm512_mul_ps(a, b); }
  static F32 div(F32 a, F32 b) { return _mm512_div_ps(a, b); }
  static F32 min(F32 a, F32 b) { return _mm512_min_ps(a, b); }
  static F32 max(F32 a, F32 b) { return _mm512_max_ps(a, b); }
  static F32 round(F32 a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static F32 abs(F32 a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a); }
  static F32 copysign(F32 a, F32 b) { return _mm512_or_ps(abs(a), _mm512_and_ps(_mm512_set1_ps(-0.0f), b)); }
  static F32 first(F32 a, size_t n) { return _mm512_maskz_mov_ps(static_cast<__mmask16>((1u << n) - 1), a); }
  static F32 mantissa(F32 a) {
    const __m512i fraction = _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(0x7fffff));
    return _mm512_castsi512_ps(_mm512_or_si512(fraction, _mm512_set1_epi32(0x3f800000)));
  }
  static F32 exponent(F32 a) {
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_srli_epi32(_mm512_castps_si512(a), 23), _mm512_set1_epi32(127)));
  }
  static F32 pow2(F32 a) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvttps_epi32(a), _mm512_set1_epi32(127)), 23));
  }
  static float sum(F32 v) {
    const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
  }
  static U32 add(U32 a, U32 b) { return {_mm512_add_epi32(a.v, b.v)}; }
  static U32 rounded_words(F32 v) { return {_mm512_cvtps_epi32(v)}; }
  static double sum_words(U32 v) {
    // Lanes may come near 2^32: pairs are added in 64 bits.
    const __m512i low = _mm512_and_si512(v.v, _mm512_set1_epi64(0xffffffff));
    return static_cast<double>(_mm512_reduce_add_epi64(_mm512_add_epi64(low, _mm512_srli_epi64(v.v, 32))));
  }
  static float min_across(F32 v) {
    const __m256 m8 = _mm256_min_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 m4 = _mm_min_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
    const __m128 m2 = _mm_min_ps(m4, _mm_movehl_ps(m4, m4));
    return _mm_cvtss_f32(_mm_min_ss(m2, _mm_movehdup_ps(m2)));
  }
  static float max_across(F32 v) {
    const __m256 m8 = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
    const __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
  }
  static void sum_four(F32 a, F32 b, F32 c, F32 d, float* to) {
    _mm_storeu_ps(to, across(a, b, c, d, [](__m512 x, __m512 y) { return _mm512_add_ps(x, y); }));
  }
  static void min_four(F32 a, F32 b, F32 c, F32 d, float* to) {
    _mm_storeu_ps(to, across(a, b, c, d, [](__m512 x, __m512 y) { return _mm512_min_ps(x, y); }));
  }
  static void max_four(F32 a, F32 b, F32 c, F32 d, float* to) {
    _mm_storeu_ps(to, across(a, b, c, d, [](__m512 x, __m512 y) { return _mm512_max_ps(x, y); }));
  }
  static void means_four(U32 a, U32 b, U32 c, U32 d, const double* less, double factor, float* to) {
    const auto as_floats = [](U32 x) { return _mm512_castsi512_ps(x.v); };
    const __m128 sums = across(as_floats(a), as_floats(b), as_floats(c), as_floats(d), [](__m512 x, __m512 y) {
      return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), _mm512_castps_si512(y)));
    });
    const __m256d left = _mm256_sub_pd(_mm256_cvtepi32_pd(_mm_castps_si128(sums)), _mm256_loadu_pd(less));
    _mm_storeu_ps(to, _mm256_cvtpd_ps(_mm256_mul_pd(left, _mm256_set1_pd(factor))));
  }
  static uint32_t differ(F32 a, F32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ); }

  static U8 load_bytes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
  static void store_bytes(uint8_t* p, U8 v) { _mm512_storeu_si512(p, v.v); }
  HQQ_INLINE static void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
  static U32 load_words(const uint32_t* p) { return {_mm512_loadu_si512(p)}; }
  static void store_words(uint32_t* p, U32 v) { _mm512_storeu_si512(p, v.v); }
  static U32 words_of_u8(const uint8_t* p) {
    return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  static void store_words_u8(uint8_t* p, U32 v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v.v));
  }
  // 16-bit shifts move bits between neighbouring bytes: harmless where no bit leaves its byte, masked away elsewhere.
  template <int Shift>
  static U8 shift_left(U8 v) {
    return {_mm512_slli_epi16(v.v, Shift)};
  }
  template <int Shift, uint32_t Mask>
  static U8 shift_mask(U8 v) {
    if constexpr (Shift > 0) v.v = _mm512_srli_epi16(v.v, Shift);
    return {_mm512_and_si512(v.v, _mm512_set1_epi8(static_cast<char>(Mask)))};
  }
  static U8 merge(U8 a, U8 b) { return {_mm512_or_si512(a.v, b.v)}; }
  template <int Shift>
  static U32 shift_left(U32 v) {
    return {_mm512_slli_epi32(v.v, Shift)};
  }
  template <int Shift, uint32_t Mask>
  static U32 shift_mask(U32 v) {
    if constexpr (Shift > 0) v.v = _mm512_srli_epi32(v.v, Shift);
    return {_mm512_and_si512(v.v, _mm512_set1_epi32(Mask))};
  }
  static U32 merge(U32 a, U32 b) { return {_mm512_or_si512(a.v, b.v)}; }
  static F32 fma(F32 a, F32 b, F32 c) { return _mm512_fmadd_ps(a, b, c); }
  static F32 to_f32(U32 w) { return _mm512_cvtepi32_ps(w.v); }

  // As in avx2-dot.h.
  struct VnniDot;
#if defined(HQQ_AVX512_VNNI)
  struct VnniDot {
    static constexpr size_t kRun = 1024;
    using Codes = U32;
    using Sum = U32;
    using Run = U32;

    static Sum zero() { return {_mm512_setzero_si512()}; }
    static Run start(Sum sum) { return sum; }
    static Codes codes(U32 w) { return w; }
    static Run add(Run run, Codes c, const int8_t* x) {
      return {dpbusd(run.v, c.v, _mm512_set1_epi32(*reinterpret_cast<const int*>(x)))};
    }
    static Sum fold(Sum, Run run) { return run; }
    static F32 total(Sum sum, int) { return to_f32(sum); }

   private:
    static __m512i dpbusd(__m512i sum, __m512i codes, __m512i x) { return _mm512_dpbusd_epi32(sum, codes, x); }
  };
#endif
  template <int Bits>
  struct MaddubsDot {
    static constexpr int kLargestPair = 2 * 127 * ((1 << Bits) - 1);
    static constexpr bool kSigned = kLargestPair > 32767;
    static constexpr size_t kRun = kSigned ? 1 : 32767 / kLargestPair;
    struct Codes {
      __m512i v, size;  // size: absolute values, where signed
      __mmask64 negative;
    };
    struct Sum {
      __m512i v;
    };
    using Run = Sum;

    static Sum zero() { return {_mm512_setzero_si512()}; }
    static Run start(Sum) { return zero(); }
    static Codes codes(U32 w) {
      if constexpr (!kSigned) return {w.v, w.v, 0};
      const __m512i v = _mm512_xor_si512(w.v, _mm512_set1_epi8(-128));
      return {v, _mm512_abs_epi8(v), _mm512_movepi8_mask(v)};
    }
    static Run add(Run run, const Codes& c, const int8_t* x) {
      const __m512i four = _mm512_set1_epi32(*reinterpret_cast<const int*>(x));
      if constexpr (kSigned) {
        return {_mm512_maddubs_epi16(c.size, _mm512_mask_sub_epi8(four, c.negative, _mm512_setzero_si512(), four))};
      } else {
        return {_mm512_add_epi16(run.v, _mm512_maddubs_epi16(c.v, four))};
      }
    }
    static Sum fold(Sum sum, Run run) {
      return {_mm512_add_epi32(sum.v, _mm512_madd_epi16(run.v, _mm512_set1_epi16(1)))};
    }
    static F32 total(Sum sum, int sum_of_x) {
      if constexpr (kSigned) sum.v = _mm512_add_epi32(sum.v, _mm512_set1_epi32(128 * sum_of_x));
      return to_f32(U32{sum.v});
    }
  };
  template <int Bits>
  using Dot = std::conditional_t<Vnni, VnniDot, MaddubsDot<Bits>>;
  template <int Bits>
  using RowsDot = Dot<Bits>;

  static void transpose16(const uint8_t* from, size_t from_stride, uint8_t* to, size_t to_stride) {
    __m128i a[16], b[16];
    for (size_t i = 0; i < 16; ++i) a[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i * from_stride));
    // Four rounds of interleaving rows i and i + 8 reverse the roles of row and column bits one by one.
    const auto interleave = [](const __m128i* in, __m128i* out) {
      for (size_t i = 0; i < 8; ++i) {
        out[2 * i] = _mm_unpacklo_epi8(in[i], in[i + 8]);
        out[2 * i + 1] = _mm_unpackhi_epi8(in[i], in[i + 8]);
      }
    };
    interleave(a, b), interleave(b, a), interleave(a, b), interleave(b, a);
    for (size_t i = 0; i < 16; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i * to_stride), a[i]);
  }
  static void transpose16(const uint32_t* from, size_t from_stride, uint32_t* to, size_t to_stride) {
    __m512i a[16], b[16];
    for (size_t i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(from + i * from_stride);
    // As above, with words: the same four rounds, each an interleaving of two whole registers.
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    const auto interleave = [&](const __m512i* in, __m512i* out) {
      for (size_t i = 0; i < 8; ++i) {
        out[2 * i] = _mm512_permutex2var_epi32(in[i], low, in[i + 8]);
        out[2 * i + 1] = _mm512_permutex2var_epi32(in[i], high, in[i + 8]);
      }
    };
    interleave(a, b), interleave(b, a), interleave(a, b), interleave(b, a);
    for (size_t i = 0; i < 16; ++i) _mm512_storeu_si512(to + i * to_stride, a[i]);
  }

 private:
  // Lanes i and i + 8 of each vector, then i + 4, i + 2, i + 1.
  template <class Op>
  static __m128 across(F32 a, F32 b, F32 c, F32 d, Op op) {
    const auto halves = [&](F32 x, F32 y) {  // of x in the low half, of y in the high one
      return op(_mm512_shuffle_f32x4(x, y, 0x44), _mm512_shuffle_f32x4(x, y, 0xee));
    };
    const F32 ab = halves(a, b), cd = halves(c, d);
    const F32 quarters = op(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    const F32 pairs = op(quarters, _mm512_permute_ps(quarters, 0x4e));
    const F32 all = op(pairs, _mm512_permute_ps(pairs, 0xb1));
    const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
    return _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, all));
  }
  static __m256i load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static void store256(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
};

using Avx512 = Avx512Of<false>;
using Avx512Vnni = Avx512Of<true>;

static_assert(Simd<Avx512>);

}  // namespace hqq::simd
