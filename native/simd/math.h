#pragma once
#include <initializer_list>

#include "simd.h"

namespace hqq::simd {

// log2(x) for positive normal x: absolute error below 2e-6. Plain IEEE operations in one fixed order, as all that
// follows from it.
template <Simd V>
HQQ_INLINE typename V::F32 log2_positive(typename V::F32 x) {
  const auto one = V::set(1.0f);
  // log2(m) = 2 / ln 2 * atanh(t) with t = (m - 1) / (m + 1) in [0, 1/3): the series of atanh(t) / t in t^2.
  const auto m = V::mantissa(x);
  const auto t = V::div(V::sub(m, one), V::add(m, one));
  const auto t2 = V::mul(t, t);
  auto series = V::set(2.0f / 15.0f);
  for (const float c : {2.0f / 13.0f, 2.0f / 11.0f, 2.0f / 9.0f, 2.0f / 7.0f, 2.0f / 5.0f, 2.0f / 3.0f, 2.0f})
    series = V::add(V::mul(series, t2), V::set(c));
  return V::add(V::mul(V::mul(series, t), V::set(1.44269504f)), V::exponent(x));
}

// x^e for positive normal x, as 2^(e * log2(x)), with |e| <= 1. Relative error below 2e-6 for x in [2^-24, 2^8], where
// shrinkage can matter; it grows with |log2(x)|, and powers beyond 2^126 become that.
//
// Plain IEEE operations in one fixed order, so that every wrapper and lib/backend/js/lanes.ts return the same bits; the
// library's pow returns others on every platform.
template <Simd V>
HQQ_INLINE typename V::F32 pow_positive(typename V::F32 x, float e) {
  const auto wide = V::mul(log2_positive<V>(x), V::set(e));
  const auto y = V::min(V::max(wide, V::set(-126.0f)), V::set(126.0f));  // pow2 knows normal numbers only

  // 2^y = 2^k * 2^r with k whole and r in [-1/2, 1/2]: the series of 2^r, coefficients ln(2)^n / n!.
  const auto k = V::round(y);
  const auto r = V::sub(y, k);
  auto power = V::set(1.54035304e-4f);
  for (const float c : {1.33335581e-3f, 9.61812911e-3f, 5.55041087e-2f, 2.40226507e-1f, 6.93147181e-1f, 1.0f})
    power = V::add(V::mul(power, r), V::set(c));
  return V::mul(power, V::pow2(k));
}

// e^x. Relative error below 2e-7 for x in [-87, 88]; x beyond is taken for the nearer end, and NaN stays NaN. Fused
// where the machine fuses.
template <Simd V>
HQQ_INLINE typename V::F32 exp(typename V::F32 x) {
  // In this order of operands: a comparison with NaN returns the second, and NaN is not to become e^-87.
  const auto bounded = V::min(V::set(88.0f), V::max(V::set(-87.0f), x));
  const auto k = V::round(V::mul(bounded, V::set(1.44269504f)));
  // x - k ln 2, with ln 2 in two parts, of which the first has so few bits that its product is exact.
  const auto r = V::fma(k, V::set(2.12194440e-4f), V::fma(k, V::set(-0.693359375f), bounded));
  auto series = V::set(1.98756915e-4f);
  for (const float c : {1.39819995e-3f, 8.33345191e-3f, 4.16657959e-2f, 1.66666655e-1f, 0.5f})
    series = V::fma(series, r, V::set(c));
  const auto power = V::fma(V::mul(r, r), series, V::add(r, V::set(1.0f)));
  return V::mul(power, V::pow2(k));
}

}  // namespace hqq::simd
