#pragma once
#include "group.h"

// The start that all solvers share: scale and zero from the least and the largest weight.
namespace hqq::kernels {

// The reference's own guards: ranges up to 1e-4 become one level, and no more than 20,000 levels per unit.
HQQ_INLINE float inv_scale_of_reference(float least, float most, float max_code) {
  const float range = most - least;
  float s = (1.0f / range) * max_code;
  if (range <= 1e-4f) s = 1.0f;
  return s < 2e4f ? s : 2e4f;
}

// A group of equal weights is one level: its value. Otherwise |zero| stays within 2^20, where a float still resolves
// fractions of a level, and s and 1 / s stay finite whatever the weights.
HQQ_INLINE float inv_scale_of(float least, float most, float magnitude, float max_code) {
  if (!(most > least)) return 1.0f;
  const float half_range = most * 0.5f - least * 0.5f;  // the range itself may overflow
  const float s = (0.5f / half_range) * max_code;
  const float limit = 1048576.0f / magnitude;
  const float clamped = s < limit ? s : limit;
  const float bounded = clamped < 0x1p120f ? clamped : 0x1p120f;
  return bounded > 0x1p-126f ? bounded : 0x1p-126f;
}

template <class V, size_t Size, bool Weighted>
HQQ_INLINE State range(const Group<V, Size, Weighted>& g, const SolveOptions& o) {
  const Facts& facts = g.facts;
  const float inv_scale = o.reference_guards ? inv_scale_of_reference(facts.least, facts.most, o.max_code)
                                             : inv_scale_of(facts.least, facts.most, facts.magnitude, o.max_code);
  // 0 - x and x + 0, because the sign of a zero must not depend on how an instruction set orders or rounds -0 and +0.
  float zero = 0.0f - facts.least * inv_scale;
  if (o.zero_kind == ZeroKind::rounded_start) {
    float lanes[kLanes];
    V::store(lanes, V::round(V::set(zero)));
    zero = lanes[0] + 0.0f;
  }
  return {inv_scale, 1.0f / inv_scale, zero};
}

// Of a solver that starts from the range, and nowhere else.
struct FromRange {
  static constexpr int kStarts = 1;

  template <class Group, class Parameters>
  HQQ_INLINE static State start(const Group& g, const SolveOptions& o, const Parameters&, int) {
    return range(g, o);
  }
};

}  // namespace hqq::kernels
