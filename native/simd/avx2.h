#pragma once
#include <immintrin.h>

#include <cstdint>
#include <type_traits>

#include "avx2-dot.h"
#include "simd.h"

namespace hqq::simd {

// AVX2 with F16C: two ymm registers, lanes 0..7 in lo. With Vnni, integer dot products use AVX-VNNI: a type of its own,
// so that no function of one is ever taken for the other's.
template <bool Vnni>
struct Avx2Of {
#if !defined(HQQ_AVX_VNNI)
  static_assert(!Vnni, "Avx2Vnni is for files that are compiled for AVX-VNNI");
#endif
  static constexpr const char* kName = "avx2";
  static constexpr const char* kDot = Vnni ? "vnni" : "maddubs";
  static constexpr size_t kBytes = 32;
  static constexpr size_t kTileRows = 6, kTileRows8 = Vnni ? 6 : 4, kTilePanels = 1, kRowPanels = 1, kFewRows = 4;
  struct F32 {
    __m256 lo, hi;
  };
  struct U32 {
    __m256i lo, hi;
  };
  using U8 = __m256i;

  static F32 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static void store(float* p, F32 v) { _mm256_storeu_ps(p, v.lo), _mm256_storeu_ps(p + 8, v.hi); }
  static F32 set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static F32 load_u8(const uint8_t* p) {
    const U32 w = words_of_u8(p);
    return {_mm256_cvtepi32_ps(w.lo), _mm256_cvtepi32_ps(w.hi)};
  }
  static void store_u8(uint8_t* p, F32 v) { store_words_u8(p, {_mm256_cvttps_epi32(v.lo), _mm256_cvttps_epi32(v.hi)}); }
  static F32 load_f16(const uint16_t* p) { return {_mm256_cvtph_ps(load128(p)), _mm256_cvtph_ps(load128(p + 8))}; }
  static F32 load_bf16(const uint16_t* p) {
    const auto widen = [](__m128i h) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); };
    return {widen(load128(p)), widen(load128(p + 8))};
  }
  static void store_f16(uint16_t* p, F32 v) {
    store128(p, _mm256_cvtps_ph(v.lo, _MM_FROUND_TO_NEAREST_INT));
    store128(p + 8, _mm256_cvtps_ph(v.hi, _MM_FROUND_TO_NEAREST_INT));
  }
  static void store_bf16(uint16_t* p, F32 v) {
    const auto narrow = [](__m256 x) {
      const __m256i u = _mm256_castps_si256(x), top = _mm256_srli_epi32(u, 16);
      const __m256i odd = _mm256_and_si256(top, _mm256_set1_epi32(1));
      const __m256i rounded =
          _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
      const __m256i quiet = _mm256_or_si256(top, _mm256_set1_epi32(0x40));
      return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
    };
    const __m256i packed = _mm256_packus_epi32(narrow(v.lo), narrow(v.hi));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
  }

  static F32 add(F32 a, F32 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
  static F32 sub(F32 a, F32 b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
  static F32 mul(F32 a, F32 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
  static F32 div(F32 a, F32 b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
  static F32 min(F32 a, F32 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
  static F32 max(F32 a, F32 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
  static F32 round(F32 a) {
    constexpr int kNearestEven = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(a.lo, kNearestEven), _mm256_round_ps(a.hi, kNearestEven)};
  }
  static F32 abs(F32 a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
  }
  static F32 copysign(F32 a, F32 b) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const F32 magnitude = abs(a);
    return {_mm256_or_ps(magnitude.lo, _mm256_and_ps(sign, b.lo)),
            _mm256_or_ps(magnitude.hi, _mm256_and_ps(sign, b.hi))};
  }
  static F32 first(F32 a, size_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), count = _mm256_set1_epi32(static_cast<int>(n));
    const __m256i lo = _mm256_cmpgt_epi32(count, lane);
    const __m256i hi = _mm256_cmpgt_epi32(count, _mm256_add_epi32(lane, _mm256_set1_epi32(8)));
    return {_mm256_and_ps(a.lo, _mm256_castsi256_ps(lo)), _mm256_and_ps(a.hi, _mm256_castsi256_ps(hi))};
  }
  static F32 mantissa(F32 a) {
    const auto one = [](__m256 x) {
      const __m256i fraction = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffff));
      return _mm256_castsi256_ps(_mm256_or_si256(fraction, _mm256_set1_epi32(0x3f800000)));
    };
    return {one(a.lo), one(a.hi)};
  }
  static F32 exponent(F32 a) {
    const auto one = [](__m256 x) {
      return _mm256_cvtepi32_ps(
          _mm256_sub_epi32(_mm256_srli_epi32(_mm256_castps_si256(x), 23), _mm256_set1_epi32(127)));
    };
    return {one(a.lo), one(a.hi)};
  }
  static F32 pow2(F32 a) {
    const auto one = [](__m256 k) {
      return _mm256_castsi256_ps(
          _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvttps_epi32(k), _mm256_set1_epi32(127)), 23));
    };
    return {one(a.lo), one(a.hi)};
  }
  static float sum(F32 v) {
    const __m256 s8 = _mm256_add_ps(v.lo, v.hi);
    const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
  }
  static U32 add(U32 a, U32 b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
  static U32 rounded_words(F32 v) { return {_mm256_cvtps_epi32(v.lo), _mm256_cvtps_epi32(v.hi)}; }
  static double sum_words(U32 v) {
    // Lanes may come near 2^32: pairs are added in 64 bits.
    const __m256i low = _mm256_set1_epi64x(0xffffffff);
    const auto halves = [&](__m256i x) { return _mm256_add_epi64(_mm256_and_si256(x, low), _mm256_srli_epi64(x, 32)); };
    const __m256i s4 = _mm256_add_epi64(halves(v.lo), halves(v.hi));
    const __m128i s2 = _mm_add_epi64(_mm256_castsi256_si128(s4), _mm256_extracti128_si256(s4, 1));
    return static_cast<double>(_mm_cvtsi128_si64(_mm_add_epi64(s2, _mm_unpackhi_epi64(s2, s2))));
  }
  static float min_across(F32 v) {
    const __m256 m8 = _mm256_min_ps(v.lo, v.hi);
    const __m128 m4 = _mm_min_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
    const __m128 m2 = _mm_min_ps(m4, _mm_movehl_ps(m4, m4));
    return _mm_cvtss_f32(_mm_min_ss(m2, _mm_movehdup_ps(m2)));
  }
  static float max_across(F32 v) {
    const __m256 m8 = _mm256_max_ps(v.lo, v.hi);
    const __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
    const __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
  }
  static void sum_four(F32 a, F32 b, F32 c, F32 d, float* to) {
    across(a, b, c, d, to, [](__m256 x, __m256 y) { return _mm256_add_ps(x, y); });
  }
  static void min_four(F32 a, F32 b, F32 c, F32 d, float* to) {
    across(a, b, c, d, to, [](__m256 x, __m256 y) { return _mm256_min_ps(x, y); });
  }
  static void max_four(F32 a, F32 b, F32 c, F32 d, float* to) {
    across(a, b, c, d, to, [](__m256 x, __m256 y) { return _mm256_max_ps(x, y); });
  }
  static void means_four(U32 a, U32 b, U32 c, U32 d, const double* less, double factor, float* to) {
    const auto halves = [](U32 x) { return _mm256_add_epi32(x.lo, x.hi); };
    const __m256i ab = _mm256_hadd_epi32(halves(a), halves(b)), cd = _mm256_hadd_epi32(halves(c), halves(d));
    const __m256i abcd = _mm256_hadd_epi32(ab, cd);
    const __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(abcd), _mm256_extracti128_si256(abcd, 1));
    const __m256d left = _mm256_sub_pd(_mm256_cvtepi32_pd(sums), _mm256_loadu_pd(less));
    _mm_storeu_ps(to, _mm256_cvtpd_ps(_mm256_mul_pd(left, _mm256_set1_pd(factor))));
  }
  static uint32_t differ(F32 a, F32 b) {
    const auto mask = [](__m256 x, __m256 y) {
      return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(x, y, _CMP_NEQ_UQ)));
    };
    return mask(a.lo, b.lo) | mask(a.hi, b.hi) << 8;
  }

  static U8 load_bytes(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static void store_bytes(uint8_t* p, U8 v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  HQQ_INLINE static void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
  static U32 load_words(const uint32_t* p) {
    const auto* q = reinterpret_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
  }
  static void store_words(uint32_t* p, U32 v) {
    auto* q = reinterpret_cast<__m256i*>(p);
    _mm256_storeu_si256(q, v.lo), _mm256_storeu_si256(q + 1, v.hi);
  }
  static U32 words_of_u8(const uint8_t* p) {
    const __m128i b = load128(p);
    return {_mm256_cvtepu8_epi32(b), _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(b, b))};
  }
  static void store_words_u8(uint8_t* p, U32 v) {
    const __m256i h = _mm256_permute4x64_epi64(_mm256_packus_epi32(v.lo, v.hi), 0xd8);
    store128(p, _mm_packus_epi16(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1)));
  }
  // 16-bit shifts move bits between neighbouring bytes: harmless where no bit leaves its byte, masked away elsewhere.
  template <int Shift>
  static U8 shift_left(U8 v) {
    return _mm256_slli_epi16(v, Shift);
  }
  template <int Shift, uint32_t Mask>
  static U8 shift_mask(U8 v) {
    if constexpr (Shift > 0) v = _mm256_srli_epi16(v, Shift);
    return _mm256_and_si256(v, _mm256_set1_epi8(static_cast<char>(Mask)));
  }
  static U8 merge(U8 a, U8 b) { return _mm256_or_si256(a, b); }
  template <int Shift>
  static U32 shift_left(U32 v) {
    return {_mm256_slli_epi32(v.lo, Shift), _mm256_slli_epi32(v.hi, Shift)};
  }
  template <int Shift, uint32_t Mask>
  static U32 shift_mask(U32 v) {
    const __m256i mask = _mm256_set1_epi32(Mask);
    if constexpr (Shift > 0) v = {_mm256_srli_epi32(v.lo, Shift), _mm256_srli_epi32(v.hi, Shift)};
    if constexpr (Mask == ~uint32_t{0} >> Shift) return v;
    return {_mm256_and_si256(v.lo, mask), _mm256_and_si256(v.hi, mask)};
  }
  static U32 merge(U32 a, U32 b) { return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
  static F32 fma(F32 a, F32 b, F32 c) { return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)}; }
  static F32 to_f32(U32 w) { return {_mm256_cvtepi32_ps(w.lo), _mm256_cvtepi32_ps(w.hi)}; }

  template <int Bits>
  using Dot = std::conditional_t<Vnni, Avx2VnniDot<Avx2Of>, Avx2MaddubsDot<Avx2Of, Bits>>;
  template <int Bits>
  using RowsDot = Dot<Bits>;

  static void transpose16(const uint8_t* from, size_t from_stride, uint8_t* to, size_t to_stride) {
    __m128i a[16], b[16];
    for (size_t i = 0; i < 16; ++i) a[i] = load128(from + i * from_stride);
    // Four rounds of interleaving rows i and i + 8 reverse the roles of row and column bits one by one.
    const auto interleave = [](const __m128i* in, __m128i* out) {
      for (size_t i = 0; i < 8; ++i) {
        out[2 * i] = _mm_unpacklo_epi8(in[i], in[i + 8]);
        out[2 * i + 1] = _mm_unpackhi_epi8(in[i], in[i + 8]);
      }
    };
    interleave(a, b), interleave(b, a), interleave(a, b), interleave(b, a);
    for (size_t i = 0; i < 16; ++i) store128(to + i * to_stride, a[i]);
  }
  static void transpose16(const uint32_t* from, size_t from_stride, uint32_t* to, size_t to_stride) {
    for (size_t r = 0; r < 16; r += 8)
      for (size_t c = 0; c < 16; c += 8)
        transpose8(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride);
  }

 private:
  // Lanes i and i + 8 of each vector, then i + 4, i + 2, i + 1.
  template <class Op>
  static void across(F32 a, F32 b, F32 c, F32 d, float* to, Op op) {
    const auto quarters = [&](__m256 x, __m256 y) {  // of x in the low half, of y in the high one
      return op(_mm256_permute2f128_ps(x, y, 0x20), _mm256_permute2f128_ps(x, y, 0x31));
    };
    const __m256 ab = quarters(op(a.lo, a.hi), op(b.lo, b.hi)), cd = quarters(op(c.lo, c.hi), op(d.lo, d.hi));
    const __m256 pairs = op(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
    const __m256 ac_bd = op(pairs, _mm256_permute_ps(pairs, 0xb1));
    const __m128 ac = _mm256_castps256_ps128(ac_bd), bd = _mm256_extractf128_ps(ac_bd, 1);
    _mm_storeu_ps(to, _mm_blend_ps(ac, bd, 0xa));
  }
  // to[c][r] = from[r][c], eight by eight
  static void transpose8(const uint32_t* from, size_t from_stride, uint32_t* to, size_t to_stride) {
    __m256i a[8], b[8];
    for (size_t i = 0; i < 8; ++i) a[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i * from_stride));
    for (size_t i = 0; i < 8; i += 2) {
      b[i] = _mm256_unpacklo_epi32(a[i], a[i + 1]);
      b[i + 1] = _mm256_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (size_t i = 0; i < 8; i += 4) {
      a[i] = _mm256_unpacklo_epi64(b[i], b[i + 2]);
      a[i + 1] = _mm256_unpackhi_epi64(b[i], b[i + 2]);
      a[i + 2] = _mm256_unpacklo_epi64(b[i + 1], b[i + 3]);
      a[i + 3] = _mm256_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    for (size_t i = 0; i < 4; ++i) {
      b[i] = _mm256_permute2x128_si256(a[i], a[i + 4], 0x20);
      b[i + 4] = _mm256_permute2x128_si256(a[i], a[i + 4], 0x31);
    }
    for (size_t i = 0; i < 8; ++i) _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i * to_stride), b[i]);
  }
  static __m128i load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
  static void store128(void* p, __m128i v) { _mm_storeu_si128(static_cast<__m128i*>(p), v); }
};

using Avx2 = Avx2Of<false>;
using Avx2Vnni = Avx2Of<true>;

static_assert(Simd<Avx2>);

}  // namespace hqq::simd
