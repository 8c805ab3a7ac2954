#pragma once
#include <immintrin.h>

#include "simd.h"

// What the wrappers of x64 share. V is whose it is: no function of one instruction set is ever taken for another's.
namespace hqq::simd {

// p[0] to p[3] = the sums of four vectors, each added as V::sum does from eight lanes on.
template <class V>
HQQ_INLINE void store_sums_of_halves(float* p, __m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256 ab = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
  const __m256 cd = _mm256_add_ps(_mm256_permute2f128_ps(c, d, 0x20), _mm256_permute2f128_ps(c, d, 0x31));
  const auto low = [](__m256 x, __m256 y) { return _mm256_shuffle_ps(x, y, _MM_SHUFFLE(1, 0, 1, 0)); };
  const auto high = [](__m256 x, __m256 y) { return _mm256_shuffle_ps(x, y, _MM_SHUFFLE(3, 2, 3, 2)); };
  const __m256 pairs = _mm256_add_ps(low(ab, cd), high(ab, cd));  // two lanes of a, two of c; then of b and of d
  const __m128 ac = _mm256_castps256_ps128(pairs), bd = _mm256_extractf128_ps(pairs, 1);
  const __m128 first = _mm_unpacklo_ps(ac, bd), second = _mm_unpackhi_ps(ac, bd);
  _mm_storeu_ps(p, _mm_add_ps(_mm_movelh_ps(first, second), _mm_movehl_ps(second, first)));
}

// to[c][r] = from[r][c], eight by eight
template <class V>
HQQ_INLINE void transpose8(const uint32_t* from, size_t from_stride, uint32_t* to, size_t to_stride) {
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

}  // namespace hqq::simd
