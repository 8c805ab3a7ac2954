#pragma once
#include "fit.h"
#include "starts.h"

namespace hqq::kernels {

// Half-quadratic splitting of weights and quantized weights, W' = (codes - zero) * scale, by a quadratic penalty:
//
//   sum of h (w - v)^2 + lambda h (v - w')^2 is lowered in turn over v, codes, and scale and zero
//
//   v            = (w + lambda w') / (1 + lambda)
//   codes        = clamp(round(v / scale + zero), 0, max_code)
//   scale, zero  = least squares of w, in closed form: fit.h                      repeated to the fixed point
//
// In levels v is code + (w / scale + zero - code) / (1 + lambda): only codes are kept from step to step. A code
// changes where its weight is more than (1 + lambda) / 2 levels off.
template <class V>
struct Hqs {
  static constexpr const char* kName = "hqs";

  // 1 / (1 + lambda) of each iteration; the first codes are those of the weights themselves, and it is 1.
  struct Parameters {
    const float* pull;
    int iterations;
  };
  static constexpr bool takes(size_t count) { return count > 0 && count <= kMaxIterations; }
  static Parameters read(const SolveOptions& o) { return {o.parameters, static_cast<int>(o.parameter_count)}; }

  // The codes of the last step.
  static constexpr size_t scratch(const SolveOptions&, size_t size) { return strip_floats(size); }

  // Returns the most steps of a group.
  template <size_t Count, bool Weighted>
  HQQ_NOINLINE static int solve(const SolveOptions& o, const Parameters& p, const Lanes<Count, Weighted>& lanes,
                                Fitted<Count>& best) {
    const auto nothing_f32 = V::set(0.0f);
    for (size_t i = 0; i < lanes.strip.vectors; ++i) V::store(lanes.memory + i * kLanes, nothing_f32);
    Fitted<Count> at;
    start_all<V>(o, {0, 0}, lanes, at);
    best = at;
    int iteration = 0;
    for (bool moves = true; moves && iteration < p.iterations; ++iteration) {
      Sums<Count> sums;
      const bool changed = encode_all(lanes, at, o.max_code, p.pull[iteration], sums);
      moves = fit<V>(o, lanes.known, sums, at) || changed;
      keep_better(at, best);
    }
    return iteration;
  }

 private:
  // The inner loop. Returns whether a code changed: where none does, and scale and zero stay, none ever will.
  template <size_t Count, bool Weighted>
  HQQ_INLINE static bool encode_all(const Lanes<Count, Weighted>& lanes, const Fitted<Count>& at, float max_code,
                                    float pull, Sums<Count>& to) {
    const auto s_f32 = lanes_of<V>(at.s), zero_f32 = lanes_of<V>(at.zero), max_f32 = V::set(max_code);
    const auto pull_f32 = V::set(pull);
    auto change_f32 = V::set(0.0f);
    sum_codes_of<V>(lanes.strip, to, [&](size_t i, auto x_f32) HQQ_INLINE_LAMBDA {
      const auto before_f32 = V::load(lanes.memory + i * kLanes);
      const auto off_f32 = V::sub(V::add(V::mul(x_f32, s_f32), zero_f32), before_f32);
      const auto code_f32 = encode<V, true>(V::mul(off_f32, pull_f32), before_f32, max_f32);
      V::store(lanes.memory + i * kLanes, code_f32);
      change_f32 = V::max(change_f32, V::abs(V::sub(code_f32, before_f32)));
      return code_f32;
    });
    return V::max_across(change_f32) > 0.0f;
  }
};

}  // namespace hqq::kernels
