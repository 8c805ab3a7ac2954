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

  // Codes, and (w + y) / (1 + rho).
  static constexpr size_t scratch(const SolveOptions&, size_t size) { return 2 * strip_floats(size); }

  // Returns the most steps of a group.
  template <size_t Count, bool Weighted>
  HQQ_NOINLINE static int solve(const SolveOptions& o, const Parameters& p, const Lanes<Count, Weighted>& lanes,
                                Fitted<Count>& best) {
    Fitted<Count> at;
    start_all<V>(o, {0, 0}, lanes, at);
    best = at;
    Sums<Count> sums;
    start_codes(p, lanes, at, o.max_code, sums);
    for (int iteration = 1;; ++iteration) {
      fit<V>(o, lanes.known, sums, at);
      keep_better(at, best);
      if (iteration == p.iterations) return iteration;
      step_codes(p, lanes, at, o.max_code, sums);
    }
  }

 private:
  template <size_t Count, bool Weighted>
  HQQ_INLINE static void start_codes(const Parameters& p, const Lanes<Count, Weighted>& lanes, const Fitted<Count>& at,
                                     float max_code, Sums<Count>& to) {
    float *codes = lanes.memory, *shares = codes + kLanes * lanes.strip.vectors;
    const auto s_f32 = lanes_of<V>(at.s), zero_f32 = lanes_of<V>(at.zero), max_f32 = V::set(max_code);
    const auto share_f32 = V::set(p.share);
    sum_codes_of<V>(lanes.strip, to, [&](size_t i, auto x_f32) HQQ_INLINE_LAMBDA {
      const auto code_f32 = encode<V, true>(V::mul(x_f32, s_f32), zero_f32, max_f32);
      V::store(codes + i * kLanes, code_f32);
      V::store(shares + i * kLanes, V::mul(V::add(x_f32, x_f32), share_f32));
      return code_f32;
    });
  }

  // The inner loop: from codes on the grid before, w' on this one, to the next y and its codes.
  template <size_t Count, bool Weighted>
  HQQ_INLINE static void step_codes(const Parameters& p, const Lanes<Count, Weighted>& lanes, const Fitted<Count>& at,
                                    float max_code, Sums<Count>& to) {
    // w' (rho - 1) / (1 + rho) = code * slope + offset
    double slope[Count], offset[Count];
    for (size_t i = 0; i < Count; ++i) {
      slope[i] = at.scale[i] * lanes.known.unit[i] * static_cast<double>(p.pull) * static_cast<double>(p.share);
      offset[i] = -at.zero[i] * slope[i];
    }
    float *codes = lanes.memory, *shares = codes + kLanes * lanes.strip.vectors;
    const auto slope_f32 = lanes_of<V>(slope), offset_f32 = lanes_of<V>(offset), share_f32 = V::set(p.share);
    const auto s_f32 = lanes_of<V>(at.s), zero_f32 = lanes_of<V>(at.zero), max_f32 = V::set(max_code);
    sum_codes_of<V>(lanes.strip, to, [&](size_t i, auto x_f32) HQQ_INLINE_LAMBDA {
      const auto pulled_f32 = V::add(V::mul(V::load(codes + i * kLanes), slope_f32), offset_f32);
      const auto y_f32 = V::add(V::load(shares + i * kLanes), pulled_f32);
      const auto code_f32 = encode<V, true>(V::mul(y_f32, s_f32), zero_f32, max_f32);
      V::store(codes + i * kLanes, code_f32);
      V::store(shares + i * kLanes, V::mul(V::add(x_f32, y_f32), share_f32));
      return code_f32;
    });
  }
};

}  // namespace hqq::kernels
