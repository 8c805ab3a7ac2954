#pragma once
#include "fit.h"
#include "starts.h"

namespace hqq::kernels {

// The alternating direction method of multipliers, with a scaled dual variable u for each weight and a penalty rho that
// may grow:
//
//   codes        = clamp(round((v + u) / scale + zero), 0, max_code)              v = w, u = 0 at first
//   scale, zero  = least squares of w, in closed form: fit.h
//   u            = v + u - w',  w' = (codes - zero) * scale
//   v            = (w + rho (w' - u)) / (1 + rho)                                 repeated
//
// Of a sum y = v + u alone: y = r (w + y) + (1 - 2 r) w', with r = 1 / (1 + rho). Below a rho of 1 codes need not
// settle, and the squares may rise on the way: the scale and the zero that left least are kept. Where it is 1, u is
// dropped: from there on codes are the nearest ones, and a group ends at its fixed point.
template <class V>
struct Admm {
  static constexpr const char* kName = "admm";

  // 1 / (1 + rho) of each iteration; the first codes are those of the weights themselves, and it is not read.
  struct Parameters {
    const float* shares;
    int iterations;
  };
  static constexpr bool takes(size_t count) { return count > 0 && count <= kMaxIterations; }
  static Parameters read(const SolveOptions& o) { return {o.parameters, static_cast<int>(o.parameter_count)}; }

  // Codes, and w + y.
  static constexpr size_t scratch(const SolveOptions&, size_t size) { return 2 * strip_floats(size); }

  // Returns the most steps of a group.
  template <size_t Count, bool Weighted>
  HQQ_NOINLINE static int solve(const SolveOptions& o, const Parameters& p, const Lanes<Count, Weighted>& lanes,
                                Fitted<Count>& best) {
    Fitted<Count> at;
    start_all<V>(o, {0, 0}, lanes, at);
    best = at;
    Sums<Count> sums;
    double beside[Count] = {};
    start_codes(lanes, at, o.max_code, sums);
    for (int iteration = 1;; ++iteration) {
      const bool moves = fit<V>(o, lanes.known, sums, at);
      keep_better(at, best);
      // Codes of a rho of 1 or more stay where scale and zero do.
      const bool settles = iteration > 1 && p.shares[iteration - 1] <= 0.5f;
      if (iteration == p.iterations || (settles && !moves)) return iteration;
      const float share = p.shares[iteration];
      if (share == 0.5f)
        sum_codes<V>(lanes.strip, at, o.max_code, sums);
      else
        step_codes(share, lanes, at, o.max_code, beside, sums);
    }
  }

 private:
  template <size_t Count, bool Weighted>
  HQQ_INLINE static void start_codes(const Lanes<Count, Weighted>& lanes, const Fitted<Count>& at, float max_code,
                                     Sums<Count>& to) {
    const Strip<Weighted> strip = lanes.strip;
    float *codes = lanes.memory, *both = codes + kLanes * strip.vectors;
    const auto s_f32 = lanes_of<V>(at.s), zero_f32 = lanes_of<V>(at.zero), max_f32 = V::set(max_code);
    sum_codes_of<V>(strip, to, [&](size_t i, auto x_f32) HQQ_INLINE_LAMBDA {
      const auto code_f32 = nearest<V>(V::add(V::mul(x_f32, s_f32), zero_f32), max_f32);
      V::store(codes + i * kLanes, code_f32);
      V::store(both + i * kLanes, V::add(x_f32, x_f32));
      return code_f32;
    });
  }

  // The inner loop: from codes on the grid before, w' on this one, to the next y and its codes. y is kept without what
  // is the same for all weights of a group, `beside`.
  template <size_t Count, bool Weighted>
  HQQ_INLINE static void step_codes(float share, const Lanes<Count, Weighted>& lanes, const Fitted<Count>& at,
                                    float max_code, double (&beside)[Count], Sums<Count>& to) {
    const double part = static_cast<double>(share), pull = 1.0 - 2.0 * part;
    double slope[Count], zero[Count];
    for (size_t i = 0; i < Count; ++i) slope[i] = at.scale[i] * lanes.known.unit[i] * pull;
    // Of 16 bits, so that its products with codes are exact: one rounding or two, all the same.
    const auto whole_f32 = lanes_of<V>(slope), wide_f32 = V::mul(whole_f32, V::set(257.0f));
    const auto slope_f32 = V::sub(wide_f32, V::sub(wide_f32, whole_f32));
    spread<V>(slope_f32, slope);
    for (size_t i = 0; i < Count; ++i) {
      beside[i] = beside[i] * part - at.zero[i] * slope[i];
      zero[i] = at.zero[i] + beside[i] * at.s[i];
    }
    const Strip<Weighted> strip = lanes.strip;
    float *codes = lanes.memory, *both = codes + kLanes * strip.vectors;
    const auto s_f32 = lanes_of<V>(at.s), zero_f32 = lanes_of<V>(zero), max_f32 = V::set(max_code);
    const auto share_f32 = V::set(share);
    sum_codes_of<V>(strip, to, [&](size_t i, auto x_f32) HQQ_INLINE_LAMBDA {
      const auto shared_f32 = V::mul(V::load(both + i * kLanes), share_f32);
      const auto y_f32 = V::fma(V::load(codes + i * kLanes), slope_f32, shared_f32);
      const auto code_f32 = nearest<V>(V::add(V::mul(y_f32, s_f32), zero_f32), max_f32);
      V::store(codes + i * kLanes, code_f32);
      V::store(both + i * kLanes, V::add(x_f32, y_f32));
      return code_f32;
    });
  }
};

}  // namespace hqq::kernels
