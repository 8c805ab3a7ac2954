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

template <class V, size_t Count>
HQQ_INLINE void round_scales(double (&scale)[Count], DType dtype) {
  if (dtype == DType::f32) return;
  for (size_t i = 0; i < Count; ++i)
    scale[i] = static_cast<double>(round_scale<V>(static_cast<float>(scale[i]), dtype));
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

template <size_t Count>
HQQ_INLINE void equate_fixed(const SolveOptions& o, const Known<Count>& known, const Sums<Count>& sums,
                             const Fitted<Count>& at, Equations<Count>& to) {
  const double max_code = static_cast<double>(o.max_code), middle = static_cast<double>(middle_code(o.max_code));
  const bool is_integer = o.zero_kind == ZeroKind::integer;
  if (is_integer) equate_float(known, sums, to);
  for (size_t i = 0; i < Count; ++i) {
    const auto square = [&](double z) HQQ_INLINE_LAMBDA {
      return sums.squares[i] - z * (2.0 * sums.codes[i] - z * known.count[i]);
    };
    const auto product = [&](double z) HQQ_INLINE_LAMBDA { return sums.products[i] - z * known.x[i]; };
    double zero = middle;
    if (is_integer) {
      const double real =
          to.a[i] > 0.0 && to.b[i] > 0.0 ? to.offset[i] - to.slope[i] * (to.a[i] / to.b[i]) : at.zero[i];
      const double inside = real > 0.0 ? (real < max_code ? real : max_code) : 0.0;
      const double low = std::floor(inside), high = low + 1.0 < max_code ? low + 1.0 : max_code;
      const double product_low = product(low), product_high = product(high);
      // which B^2 / A is more, without dividing by what may be 0
      const bool low_is_better =
          product_low > 0.0 && product_low * product_low * square(high) >= product_high * product_high * square(low);
      zero = product_high > 0.0 && !low_is_better ? high : low;
    }
    to.a[i] = square(zero), to.b[i] = product(zero), to.c[i] = known.xx[i];
    to.offset[i] = zero, to.slope[i] = 0.0;
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
