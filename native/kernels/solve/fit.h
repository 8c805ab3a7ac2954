#pragma once
#include <cmath>

#include "lanes.h"

// The scale and the zero that suit codes best: weighted least squares in closed form.
//
//   sum of h (x - a (q - zero))^2  is least
//
//   float       a = B / A with A = sum h q^2 - (sum h q)^2 / n,  B = sum h q x - (sum h q) (sum h x) / n,  n = sum h
//               zero = (sum h q) / n - (sum h x) / n / a
//   otherwise   a = B / A with A = sum h (q - zero)^2,  B = sum h (q - zero) x, for a zero that is given; an integer
//   one is
//               the better of those beside the float one
//
// What is left is C - a (2 B - a A), with C = sum h x^2, of the float kind less (sum h x)^2 / n.
namespace hqq::kernels {

// As round_scale of range.h, a vector at a time.
template <class V, size_t Count>
HQQ_INLINE void round_scales(double (&scale)[Count], DType dtype) {
  if (dtype == DType::f32) return;
  const auto scale_f32 = lanes_of<V>(scale);
  double rounded_scale[Count];
  spread<V>(dtype == DType::f16 ? rounded<V, Float16>(scale_f32) : rounded<V, BFloat16>(scale_f32), rounded_scale);
  for (size_t i = 0; i < Count; ++i) {
    const double size = size_of(rounded_scale[i]), there = size > 0.0 ? rounded_scale[i] : scale[i];
    scale[i] = size < kMostScale ? there : scale[i];
  }
}

// a, b and c of the formulas above; zero = offset - slope * s.
template <size_t Count>
struct Equations {
  double a[Count], b[Count], c[Count], offset[Count], slope[Count];
};

template <size_t Count>
HQQ_INLINE void equate_float(const Known<Count>& known, const Sums<Count>& sums, Equations<Count>& to) {
  for (size_t i = 0; i < Count; ++i) {
    to.offset[i] = sums.codes[i] * known.inv_count[i];
    to.slope[i] = known.x[i] * known.inv_count[i];
    to.a[i] = sums.squares[i] - sums.codes[i] * to.offset[i];
    to.b[i] = sums.products[i] - to.offset[i] * known.x[i];
    to.c[i] = known.xx[i] - known.x[i] * to.slope[i];
  }
}

// The better of the codes beside the zero that suits best.
template <size_t Count>
HQQ_INLINE void choose_zero(double max_code, const Known<Count>& known, const Sums<Count>& sums,
                            const Equations<Count>& real, const Fitted<Count>& at, double (&to)[Count]) {
  double exact[Count], rising[Count], wanted[Count], inside[Count], low[Count], high[Count], product_low[Count],
      product_high[Count], explained_low[Count], explained_high[Count];
  for (size_t i = 0; i < Count; ++i) exact[i] = real.offset[i] - real.slope[i] * (real.a[i] / real.b[i]);
  for (size_t i = 0; i < Count; ++i) rising[i] = real.b[i] > 0.0 ? exact[i] : at.zero[i];
  for (size_t i = 0; i < Count; ++i) wanted[i] = real.a[i] > 0.0 ? rising[i] : at.zero[i];
  for (size_t i = 0; i < Count; ++i) inside[i] = wanted[i] > 0.0 ? wanted[i] : 0.0;
  for (size_t i = 0; i < Count; ++i) inside[i] = inside[i] < max_code ? inside[i] : max_code;
  for (size_t i = 0; i < Count; ++i) {
    const double whole = (inside[i] + 0x1.8p52) - 0x1.8p52;
    low[i] = whole - (whole > inside[i] ? 1.0 : 0.0);
    high[i] = low[i] + 1.0 < max_code ? low[i] + 1.0 : max_code;
  }
  // which B^2 / A is more, without dividing by what may be 0
  for (size_t i = 0; i < Count; ++i) {
    product_low[i] = sums.products[i] - low[i] * known.x[i], product_high[i] = sums.products[i] - high[i] * known.x[i];
    const double square_low = sums.squares[i] - low[i] * (2.0 * sums.codes[i] - low[i] * known.count[i]);
    const double square_high = sums.squares[i] - high[i] * (2.0 * sums.codes[i] - high[i] * known.count[i]);
    explained_low[i] = product_low[i] * product_low[i] * square_high;
    explained_high[i] = product_high[i] * product_high[i] * square_low;
  }
  for (size_t i = 0; i < Count; ++i) {
    const double better = explained_low[i] >= explained_high[i] ? low[i] : high[i];
    const double risen = product_low[i] > 0.0 ? better : high[i];
    to[i] = product_high[i] > 0.0 ? risen : low[i];
  }
}

template <size_t Count>
HQQ_INLINE void equate_fixed(const SolveOptions& o, const Known<Count>& known, const Sums<Count>& sums,
                             const Fitted<Count>& at, Equations<Count>& to) {
  double zero[Count];
  for (size_t i = 0; i < Count; ++i) zero[i] = static_cast<double>(middle_code(o.max_code));
  if (o.zero_kind == ZeroKind::integer) {
    equate_float(known, sums, to);
    choose_zero(static_cast<double>(o.max_code), known, sums, to, at, zero);
  }
  for (size_t i = 0; i < Count; ++i) {
    to.a[i] = sums.squares[i] - zero[i] * (2.0 * sums.codes[i] - zero[i] * known.count[i]);
    to.b[i] = sums.products[i] - zero[i] * known.x[i];
    to.c[i] = known.xx[i], to.offset[i] = zero[i], to.slope[i] = 0.0;
  }
}

// Moves `at` to what suits the codes that were summed; a group whose codes are all alike stays. Returns whether one
// moved. Without Costs `at.cost` stays as it is. Loops are without branches: compilers make vectors of them.
template <class V, bool Costs = true, size_t Count>
HQQ_NOINLINE bool fit(const SolveOptions& o, const Known<Count>& known, const Sums<Count>& sums, Fitted<Count>& at) {
  const bool either_sign = o.zero_kind == ZeroKind::symmetric;
  Equations<Count> e;
  if (either_sign || o.zero_kind == ZeroKind::integer)
    equate_fixed(o, known, sums, at, e);
  else
    equate_float(known, sums, e);
  double scale[Count], s[Count], zero[Count], inv_scale[Count], ratio[Count], cost[Count], takes[Count], moves[Count];
  const double least_product = either_sign ? -static_cast<double>(INFINITY) : 0.0;
  spread<V>(V::mul(V::div(lanes_of<V>(e.b), lanes_of<V>(e.a)), lanes_of<V>(known.inv_unit)), ratio);
  for (size_t i = 0; i < Count; ++i) {
    const double rising = e.b[i] > least_product ? ratio[i] : 0.0;
    scale[i] = e.a[i] > 0.0 ? rising : 0.0;  // 0: there is none
  }
  round_scales<V>(scale, o.scale_dtype);
  spread<V>(V::div(V::set(1.0f), lanes_of<V>(scale)), inv_scale);
  for (size_t i = 0; i < Count; ++i) {
    s[i] = inv_scale[i] * known.inv_unit[i];
    zero[i] = e.offset[i] - e.slope[i] * s[i];
  }
  spread<V>(lanes_of<V>(zero), zero);
  for (size_t i = 0; i < Count; ++i) {
    if constexpr (Costs) {
      const double level = scale[i] * known.unit[i];
      cost[i] = e.c[i] - level * (2.0 * e.b[i] - level * e.a[i]);
    }
    const double size = size_of(scale[i]), above = size >= kLeastScale ? 1.0 : 0.0;
    const double inside = size <= kMostScale ? above : 0.0;
    takes[i] = size_of(zero[i]) <= kMostZero ? inside : 0.0;
  }
  for (size_t i = 0; i < Count; ++i) {
    s[i] = takes[i] > 0.0 ? s[i] : at.s[i];
    zero[i] = takes[i] > 0.0 ? zero[i] : at.zero[i];
    const double changed = zero[i] != at.zero[i] ? 1.0 : 0.0;
    moves[i] = s[i] != at.s[i] ? 1.0 : changed;
  }
  for (size_t i = 0; i < Count; ++i) {
    at.s[i] = s[i], at.zero[i] = zero[i];
    at.scale[i] = takes[i] > 0.0 ? scale[i] : at.scale[i];
    if constexpr (Costs) at.cost[i] = takes[i] > 0.0 ? cost[i] : at.cost[i];
  }
  bool moved = false;
  for (size_t i = 0; i < Count; ++i) moved |= moves[i] > 0.0;
  return moved;
}

}  // namespace hqq::kernels
