#pragma once
#include "../bits.h"
#include "range.h"

// What solvers that fit scale and zero together read of a group: sums over its weights and codes. Two layouts give each
// ISA, and lib/backend/js, one order of additions. It depends on the size of the group alone.
//
//   up to kSideBySide weights    sixteen groups are turned, and lie in the lanes of a vector: a sum of a group stays in
//                                its lane, and what is computed once a group is computed for sixteen at a time
//   more                         a group's weights are the lanes; its sixteen partial sums meet in the tree of V::sum
//
// Either way float sums run over kChunk vectors at most, and then go on in double.
namespace hqq::kernels {

inline constexpr size_t kChunk = 64;

// A float below 2^22, and not below 0, that is added to it becomes whole.
inline constexpr float kWhole = 0x1.8p23f;

// Weights as these solvers see them are x = w * unit, unit the power of two that makes the largest magnitude of the
// group 1 to 2: it is exact, so that codes of x are those of w, and no product overflows.

// Vectors to sum over, and the lanes of the last one.
template <bool Weighted>
struct Strip {
  const float* x;
  const float* importance;  // of weighted strips
  size_t vectors, last;
};

// Sums a lane each; Count is 16, or 1 where they have met.
template <size_t Count>
struct Sums {
  double codes[Count], squares[Count], products[Count];  // of q, q^2, q x; times importance
};

// What does not change: importance, or the number of weights, and sums of x and x^2; the unit and what takes it back.
template <size_t Count>
struct Known {
  double count[Count], inv_count[Count], x[Count], xx[Count];
  double unit[Count], inv_unit[Count];
};

// Where groups stand: codes are clamp(round(x * s + zero), 0, max_code), and s = 1 / (scale * unit). `cost` is the sum
// of squares that is left with the scale and zero that were fitted to the last codes. All but it are floats; they lie
// in doubles because loops over one type become vectors.
template <size_t Count>
struct Fitted {
  double s[Count], zero[Count], scale[Count];
  double cost[Count];
};

// Lanes of `at` that cost less take the place of `best`'s.
template <size_t Count>
HQQ_INLINE void keep_better(const Fitted<Count>& at, Fitted<Count>& best) {
  for (size_t i = 0; i < Count; ++i) {
    best.s[i] = at.cost[i] < best.cost[i] ? at.s[i] : best.s[i];
    best.zero[i] = at.cost[i] < best.cost[i] ? at.zero[i] : best.zero[i];
    best.scale[i] = at.cost[i] < best.cost[i] ? at.scale[i] : best.scale[i];
  }
  for (size_t i = 0; i < Count; ++i) best.cost[i] = at.cost[i] < best.cost[i] ? at.cost[i] : best.cost[i];
}

// Lanes of `at` that cost less change places with `best`'s.
template <size_t Count>
HQQ_INLINE void exchange_better(Fitted<Count>& at, Fitted<Count>& best) {
  double from[4][Count], to[4][Count];
  for (size_t i = 0; i < Count; ++i) {
    const bool better = at.cost[i] < best.cost[i];
    to[0][i] = better ? at.s[i] : best.s[i], from[0][i] = better ? best.s[i] : at.s[i];
    to[1][i] = better ? at.zero[i] : best.zero[i], from[1][i] = better ? best.zero[i] : at.zero[i];
    to[2][i] = better ? at.scale[i] : best.scale[i], from[2][i] = better ? best.scale[i] : at.scale[i];
    to[3][i] = better ? at.cost[i] : best.cost[i], from[3][i] = better ? best.cost[i] : at.cost[i];
  }
  for (size_t i = 0; i < Count; ++i) {
    best.s[i] = to[0][i], best.zero[i] = to[1][i], best.scale[i] = to[2][i], best.cost[i] = to[3][i];
    at.s[i] = from[0][i], at.zero[i] = from[1][i], at.scale[i] = from[2][i], at.cost[i] = from[3][i];
  }
}

// x, rounded to float.
HQQ_INLINE double to_float(double x) { return static_cast<double>(static_cast<float>(x)); }
HQQ_INLINE double size_of(double x) { return x < 0.0 ? -x : x; }

// to = the lanes, or where Count is 1 their sum.
template <size_t Count>
HQQ_INLINE void settle(double (&lanes)[kLanes], double (&to)[Count]) {
  if constexpr (Count == 1)
    for (size_t width = kLanes / 2; width > 0; width /= 2)
      for (size_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  for (size_t i = 0; i < Count; ++i) to[i] = lanes[i];
}

template <class V>
HQQ_INLINE void add_lanes(typename V::F32 v, double (&to)[kLanes]) {
  float lanes[kLanes];
  V::store(lanes, v);
  for (size_t i = 0; i < kLanes; ++i) to[i] += static_cast<double>(lanes[i]);
}

template <class V, size_t Count>
HQQ_INLINE typename V::F32 lanes_of(const double (&values)[Count]) {
  if constexpr (Count == 1) {
    return V::set(static_cast<float>(values[0]));
  } else {
    float lanes[kLanes];
    for (size_t i = 0; i < kLanes; ++i) lanes[i] = static_cast<float>(values[i]);
    return V::load(lanes);
  }
}

// The other way.
template <class V, size_t Count>
HQQ_INLINE void spread(typename V::F32 v, double (&to)[Count]) {
  float lanes[kLanes];
  V::store(lanes, v);
  for (size_t i = 0; i < Count; ++i) to[i] = static_cast<double>(lanes[i]);
}

// Adds terms up: `step(i, lanes, sums)` adds to sums[0..Terms) what vector i contributes.
template <class V, size_t Terms, size_t Count, class Step>
HQQ_INLINE void sum_up(size_t vectors, size_t last, double (&to)[Terms][Count], Step step) {
  double totals[Terms][kLanes];
  for (size_t t = 0; t < Terms; ++t)
    for (size_t i = 0; i < kLanes; ++i) totals[t][i] = 0.0;
  for (size_t first = 0; first < vectors; first += kChunk) {
    const size_t end = first + kChunk < vectors ? first + kChunk : vectors;
    const bool ends = end == vectors && last < kLanes;
    typename V::F32 sums[Terms];
    for (size_t t = 0; t < Terms; ++t) sums[t] = V::set(0.0f);
    for (size_t i = first; i < end - static_cast<size_t>(ends); ++i) step(i, kLanes, sums);
    if (ends) step(end - 1, last, sums);
    for (size_t t = 0; t < Terms; ++t) add_lanes<V>(sums[t], totals[t]);
  }
  for (size_t t = 0; t < Terms; ++t) settle<Count>(totals[t], to[t]);
}

// sums = what `codes_of(i, x)` gives for each vector, and its products. It is the inner loop.
template <class V, size_t Count, bool Weighted, class Codes>
HQQ_INLINE void sum_codes_of(const Strip<Weighted>& strip, Sums<Count>& to, Codes codes_of) {
  double sums[3][Count];
  sum_up<V>(strip.vectors, strip.last, sums, [&](size_t i, size_t lanes, auto* sum) HQQ_INLINE_LAMBDA {
    const auto x_f32 = V::load(strip.x + i * kLanes);
    const auto code_f32 = keep<V>(codes_of(i, x_f32), lanes);
    auto share_f32 = code_f32;
    if constexpr (Weighted) share_f32 = V::mul(V::load(strip.importance + i * kLanes), code_f32);
    sum[0] = V::add(sum[0], share_f32);
    // Sums of squares of codes are whole numbers below 2^24: exact in one rounding or in two.
    if constexpr (Weighted)
      sum[1] = V::add(sum[1], V::mul(share_f32, code_f32));
    else
      sum[1] = V::fma(code_f32, code_f32, sum[1]);
    sum[2] = V::add(sum[2], V::mul(share_f32, x_f32));
  });
  for (size_t i = 0; i < Count; ++i) to.codes[i] = sums[0][i], to.squares[i] = sums[1][i], to.products[i] = sums[2][i];
}

// The code that is nearest to a place, in levels from the first: encode's bits. Additions round half to even, too, and
// processors have more units for them.
template <class V>
HQQ_INLINE typename V::F32 nearest(typename V::F32 place, typename V::F32 max_code) {
  const auto inside_f32 = V::min(V::max(place, V::set(0.0f)), max_code);
  return V::sub(V::add(inside_f32, V::set(kWhole)), V::set(kWhole));
}

// Codes of the state, and their sums.
template <class V, size_t Count, bool Weighted>
HQQ_INLINE void sum_codes(const Strip<Weighted>& strip, const Fitted<Count>& at, float max_code, Sums<Count>& to) {
  const auto s_f32 = lanes_of<V>(at.s), zero_f32 = lanes_of<V>(at.zero), max_f32 = V::set(max_code);
  sum_codes_of<V>(strip, to, [&](size_t, auto x_f32) HQQ_INLINE_LAMBDA {
    return nearest<V>(V::add(V::mul(x_f32, s_f32), zero_f32), max_f32);
  });
}

// Sums of x, and of importance.
template <class V, size_t Count, bool Weighted>
void know(const Strip<Weighted>& strip, size_t size, Known<Count>& to) {
  double sums[3][Count];
  sum_up<V>(strip.vectors, strip.last, sums, [&](size_t i, size_t lanes, auto* sum) {
    const auto x_f32 = keep<V>(V::load(strip.x + i * kLanes), lanes);
    auto share_f32 = x_f32;
    if constexpr (Weighted) {
      const auto importance_f32 = keep<V>(V::load(strip.importance + i * kLanes), lanes);
      share_f32 = V::mul(importance_f32, x_f32);
      sum[2] = V::add(sum[2], importance_f32);
    }
    sum[0] = V::add(sum[0], share_f32);
    sum[1] = V::add(sum[1], V::mul(share_f32, x_f32));
  });
  for (size_t i = 0; i < Count; ++i) {
    to.x[i] = sums[0][i], to.xx[i] = sums[1][i];
    to.count[i] = Weighted ? sums[2][i] : static_cast<double>(static_cast<int64_t>(size));
    to.inv_count[i] = 1.0 / to.count[i];
  }
}

}  // namespace hqq::kernels
