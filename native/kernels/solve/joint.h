#pragma once
#include "../../simd/math.h"
#include "fit.h"
#include "starts.h"

namespace hqq::kernels {

// Half-quadratic splitting over scale and zero.
//
//   codes         = clamp(round(w / scale + zero), 0, max_code)
//   e             = shrink(w - (codes - zero) * scale)         of lpNorm 2: 0; else Lp shrinkage of residuals in levels
//   scale, zero   = least squares of w - e, in closed form: fit.h            repeated to the fixed point
//
// Each of several starts takes a step; the few that cost least then take a second one, and the one that costs least
// goes on. Each half of a step lowers the sum of squares or leaves it, so the end is never worse than the range, which
// is the first of the starts.
template <class V>
struct Joint {
  static constexpr const char* kName = "joint";

  // lpNorm, how many starts take a second step, 1 where beta grows, how many starts; each start's two numbers
  // (starts.h); then 1 / beta of each iteration.
  static constexpr size_t kMostKept = 4;
  struct Parameters {
    float lp_norm;
    size_t kept;
    bool beta_grows;
    Starts starts;
    const float* inv_beta;
    int iterations;
  };
  static constexpr size_t kHead = 4;
  static constexpr bool takes(size_t count) { return count > kHead + 2; }
  static Parameters read(const SolveOptions& o) {
    const float* p = o.parameters;
    const Starts starts(p[3], p + kHead, o.parameter_count - kHead - 1);
    const float* inv_beta = starts.end();
    const auto left = static_cast<size_t>(p + o.parameter_count - inv_beta);
    const int iterations = static_cast<int>(left < kMaxIterations ? left : kMaxIterations);
    const size_t kept = p[1] >= 1.0f && p[1] <= static_cast<float>(kMostKept) ? static_cast<size_t>(p[1]) : 1;
    return {p[0], kept, p[2] != 0.0f, starts, inv_beta, iterations};
  }

  // Returns the most steps of a group. One copy for groups of all sizes, which are known where it is called.
  template <size_t Count, bool Weighted>
  HQQ_NOINLINE static int solve(const SolveOptions& o, const Parameters& p, const Lanes<Count, Weighted>& lanes,
                                Fitted<Count>& best) {
    Fitted<Count> kept[kMostKept], at;
    for (size_t k = 0; k < p.starts.count; ++k) {
      start_all<V>(o, p.starts[k], lanes, at);
      advance(o, p, 0, lanes, at);
      const size_t before = k < p.kept ? k : p.kept;
      for (size_t i = 0; i < before; ++i) exchange_better(at, kept[i]);
      if (k < p.kept) kept[k] = at;
    }
    best = kept[0];
    int iteration = 1;
    if (p.kept > 1 && p.iterations > 1) {
      advance(o, p, iteration, lanes, best);
      for (size_t k = 1; k < p.kept && k < p.starts.count; ++k) {
        advance(o, p, iteration, lanes, kept[k]);
        keep_better(kept[k], best);
      }
      ++iteration;
    }
    bool moves = true;
    if (p.lp_norm == 2.0f) {
      for (; moves && iteration < p.iterations; ++iteration) moves = step<false>(o, lanes, best);
      return iteration;
    }
    at = best;
    for (; moves && iteration < p.iterations; ++iteration) {
      moves = shrinking_step(o, p, iteration, lanes, at) || p.beta_grows;
      Fitted<Count> next = at;
      measure(o, p, lanes, next);
      keep_better(next, best);
    }
    return iteration;
  }

 private:
  // A step, and what it costs.
  template <size_t Count, bool Weighted>
  HQQ_NOINLINE static void advance(const SolveOptions& o, const Parameters& p, int iteration,
                                   const Lanes<Count, Weighted>& lanes, Fitted<Count>& at) {
    if (p.lp_norm == 2.0f) {
      step<true>(o, lanes, at);
    } else {
      shrinking_step(o, p, iteration, lanes, at);
      measure(o, p, lanes, at);
    }
  }

  template <bool Costs, size_t Count, bool Weighted>
  HQQ_INLINE static bool step(const SolveOptions& o, const Lanes<Count, Weighted>& lanes, Fitted<Count>& at) {
    Sums<Count> sums;
    sum_codes<V>(lanes.strip, at, o.max_code, sums);
    return fit<V, Costs>(o, lanes.known, sums, at);
  }

  // What shrinkage takes of residuals in levels: sums of e and q e; and of |r|^p.
  template <size_t Count>
  struct Shrunk {
    double e[Count], products[Count], power[Count];
  };

  template <size_t Count, bool Weighted>
  HQQ_NOINLINE static void shrink(const Parameters& p, float inv_beta, float max_code, const Strip<Weighted>& strip,
                                  const Fitted<Count>& at, Shrunk<Count>& to) {
    const auto s_f32 = lanes_of<V>(at.s), zero_f32 = lanes_of<V>(at.zero), max_f32 = V::set(max_code);
    double sums[3][Count];
    sum_up<V>(strip.vectors, strip.last, sums, [&](size_t i, size_t lanes, auto* sum) {
      const auto scaled_f32 = V::mul(V::load(strip.x + i * kLanes), s_f32);
      const auto code_f32 = encode<V, true>(scaled_f32, zero_f32, max_f32);
      const auto residual_f32 = V::sub(V::add(scaled_f32, zero_f32), code_f32);
      const auto magnitude_f32 = V::abs(residual_f32);
      // what is smaller is nothing either way
      const auto normal_f32 = V::max(magnitude_f32, V::set(0x1p-126f));
      const auto slope_f32 = simd::pow_positive<V>(normal_f32, p.lp_norm - 1.0f);
      const auto left_f32 = V::max(V::sub(magnitude_f32, V::mul(V::set(inv_beta), slope_f32)), V::set(0.0f));
      auto shrunk_f32 = V::copysign(left_f32, residual_f32), power_f32 = V::mul(magnitude_f32, slope_f32);
      if constexpr (Weighted) {
        const auto importance_f32 = V::load(strip.importance + i * kLanes);
        shrunk_f32 = V::mul(importance_f32, shrunk_f32), power_f32 = V::mul(importance_f32, power_f32);
      }
      shrunk_f32 = keep<V>(shrunk_f32, lanes);
      sum[0] = V::add(sum[0], shrunk_f32);
      sum[1] = V::add(sum[1], V::mul(shrunk_f32, code_f32));
      sum[2] = V::add(sum[2], keep<V>(power_f32, lanes));
    });
    for (size_t i = 0; i < Count; ++i) to.e[i] = sums[0][i], to.products[i] = sums[1][i], to.power[i] = sums[2][i];
  }

  // A step of lpNorm below 2: scale and zero are fitted to the weights without their shrunk errors.
  template <size_t Count, bool Weighted>
  HQQ_NOINLINE static bool shrinking_step(const SolveOptions& o, const Parameters& p, int iteration,
                                          const Lanes<Count, Weighted>& lanes, Fitted<Count>& at) {
    Sums<Count> sums;
    Shrunk<Count> shrunk;
    sum_codes<V>(lanes.strip, at, o.max_code, sums);
    shrink(p, p.inv_beta[iteration], o.max_code, lanes.strip, at, shrunk);
    Known<Count> known = lanes.known;
    for (size_t i = 0; i < Count; ++i) {
      const double level = at.scale[i] * known.unit[i];
      known.x[i] -= shrunk.e[i] * level;
      sums.products[i] -= shrunk.products[i] * level;
    }
    const Fitted<Count> before = at;
    bool moves = fit<V>(o, known, sums, at);
    // Residuals are shrunk in levels of `scale`, and two scales may have one inverse.
    for (size_t i = 0; i < Count; ++i) moves |= at.scale[i] != before.scale[i];
    return moves;
  }

  // cost = sum of |x - (q - zero) a|^p
  template <size_t Count, bool Weighted>
  HQQ_NOINLINE static void measure(const SolveOptions& o, const Parameters& p, const Lanes<Count, Weighted>& lanes,
                                   Fitted<Count>& at) {
    Shrunk<Count> shrunk;
    shrink(p, 0.0f, o.max_code, lanes.strip, at, shrunk);
    float levels[kLanes] = {};
    for (size_t i = 0; i < Count; ++i) levels[i] = static_cast<float>(at.scale[i] * lanes.known.unit[i]);
    const auto normal_f32 = V::max(V::abs(V::load(levels)), V::set(0x1p-126f));
    V::store(levels, simd::pow_positive<V>(normal_f32, p.lp_norm));
    for (size_t i = 0; i < Count; ++i) at.cost[i] = shrunk.power[i] * static_cast<double>(levels[i]);
  }
};

}  // namespace hqq::kernels
