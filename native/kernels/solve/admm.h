#pragma once
#include "fit.h"
#include "starts.h"

namespace hqq::kernels {

// The alternating direction method of multipliers, with a scaled dual variable u for each weight:
//
//   codes        = clamp(round((v + u) / scale + zero), 0, max_code)              v = w, u = 0 at first
//   scale, zero  = least squares of w, in closed form: fit.h
//   u            = v + u - w',  w' = (codes - zero) * scale
//   v            = (w + rho (w' - u)) / (1 + rho)                                 repeated
//
// Of a sum y = v + u alone: y = (w + y + (rho - 1) w') / (1 + rho). Codes need not settle, and the squares may rise on
// the way: the scale and the zero that left least are kept.
template <class V>
struct Admm {
  static constexpr const char* kName = "admm";

  // 1 / (1 + rho), rho - 1, iterations.
  struct Parameters {
    float share, pull;
    int iterations;
  };
  static constexpr bool takes(size_t count) { return count == 3; }
  static Parameters read(const SolveOptions& o) {
    const float* p = o.parameters;
    const float most = static_cast<float>(kMaxIterations);
    return {p[0], p[1], p[2] >= 1.0f ? static_cast<int>(p[2] < most ? p[2] : most) : 1};
  }

  // y
  static constexpr size_t scratch(const SolveOptions&, size_t size) { return strip_floats(size); }

  // Returns the most steps of a group.
  template <size_t Count, bool Weighted>
  HQQ_NOINLINE static int solve(const SolveOptions& o, const Parameters& p, const Lanes<Count, Weighted>& lanes,
                                Fitted<Count>& best) {
    for (size_t i = 0; i < lanes.strip.vectors; ++i)
      V::store(lanes.memory + i * kLanes, V::load(lanes.strip.x + i * kLanes));
    Fitted<Count> at;
    start_all(o, {0, 0}, lanes, at);
    best = at;
    Sums<Count> sums;
    sum_codes<V>(lanes.strip, at, o.max_code, sums);
    for (int iteration = 1;; ++iteration) {
      const Fitted<Count> before = at;
      fit<V>(o, lanes.known, sums, at);
      keep_better(at, best);
      if (iteration == p.iterations) return iteration;
      encode_all(p, lanes, before, at, o.max_code, sums);
    }
  }

 private:
  // The inner loop: from the codes of y on the grid before, w' on this one, to the next y and its codes.
  template <size_t Count, bool Weighted>
  HQQ_INLINE static void encode_all(const Parameters& p, const Lanes<Count, Weighted>& lanes,
                                    const Fitted<Count>& before, const Fitted<Count>& at, float max_code,
                                    Sums<Count>& to) {
    double pulls[Count];
    for (size_t i = 0; i < Count; ++i) pulls[i] = at.scale[i] * lanes.known.unit[i] * static_cast<double>(p.pull);
    const auto s_before_f32 = lanes_of<V>(before.s), zero_before_f32 = lanes_of<V>(before.zero);
    const auto s_f32 = lanes_of<V>(at.s), zero_f32 = lanes_of<V>(at.zero), max_f32 = V::set(max_code);
    const auto pull_f32 = lanes_of<V>(pulls), share_f32 = V::set(p.share);
    sum_codes_of<V>(lanes.strip, to, [&](size_t i, auto x_f32) HQQ_INLINE_LAMBDA {
      const auto y_f32 = V::load(lanes.memory + i * kLanes);
      const auto code_f32 = encode<V, true>(V::mul(y_f32, s_before_f32), zero_before_f32, max_f32);
      const auto pulled_f32 = V::mul(V::sub(code_f32, zero_f32), pull_f32);
      const auto next_f32 = V::mul(V::add(V::add(x_f32, y_f32), pulled_f32), share_f32);
      V::store(lanes.memory + i * kLanes, next_f32);
      return encode<V, true>(V::mul(next_f32, s_f32), zero_f32, max_f32);
    });
  }
};

}  // namespace hqq::kernels
