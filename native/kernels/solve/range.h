#pragma once
#include "../convert.h"
#include "group.h"

// The start that all solvers share: scale and zero from the least and the largest weight.
namespace hqq::kernels {

// Bounds of scales, whose inverses are normal numbers then, and of zeros: up to there a float resolves fractions of a
// level.
inline constexpr double kLeastScale = 0x1p-120, kMostScale = 0x1p126, kMostZero = 1048576.0;

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

// values = values, rounded to the type that they will be stored in. kMaxBlock of them: one vector.
template <class V>
void round_as_stored(float* values, DType dtype) {
  static_assert(kMaxBlock == kLanes);
  if (dtype == DType::f16) V::store(values, rounded<V, Float16>(V::load(values)));
  if (dtype == DType::bf16) V::store(values, rounded<V, BFloat16>(V::load(values)));
}

// What a scale is rounded to. What its type does not hold stays as it is, for the caller to refuse.
HQQ_INLINE float storable(float rounded_scale, float scale) {
  const float size = rounded_scale < 0 ? -rounded_scale : rounded_scale;
  return size > 0.0f && size < static_cast<float>(kMostScale) ? rounded_scale : scale;
}

// A scale, rounded to the type that it is stored in.
template <class V>
HQQ_INLINE float round_scale(float scale, DType dtype) {
  if (dtype == DType::f32) return scale;
  float values[kMaxBlock] = {scale};
  round_as_stored<V>(values, dtype);
  return storable(values[0], scale);
}

// The zero of symmetric codes.
HQQ_INLINE float middle_code(float max_code) { return static_cast<float>((static_cast<int>(max_code) + 1) / 2); }

// The code beside a zero, half to even. x + 0, because the sign of a zero must not depend on how an instruction set
// rounds -0.
template <class V>
HQQ_INLINE float whole_zero(float zero, float max_code) {
  float lanes[kLanes];
  V::store(lanes, V::round(V::min(V::max(V::set(zero), V::set(0.0f)), V::set(max_code))));
  return lanes[0] + 0.0f;
}

// A scale that takes both ends in, of the sign that needs the smaller one.
HQQ_INLINE float inv_scale_of_symmetric(const Facts& facts, float max_code) {
  if (!(facts.magnitude > 0.0f)) return 1.0f;
  const float below = middle_code(max_code), above = max_code - below;
  const float low = facts.least < 0.0f ? 0.0f - facts.least : 0.0f, high = facts.most > 0.0f ? facts.most : 0.0f;
  // There is one code less above the middle than below; at one bit there is none, and what lies there becomes 0.
  const float upright_high = above > 0.0f ? high / above : 0.0f, turned_low = above > 0.0f ? low / above : 0.0f;
  const float upright = low / below > upright_high ? low / below : upright_high;
  const float turned = high / below > turned_low ? high / below : turned_low;
  const bool turns = above > 0.0f ? turned < upright : high > low;
  const float s = 1.0f / (turns ? turned : upright);
  const float bounded = s < 0x1p120f ? s : 0x1p120f, size = bounded > 0x1p-126f ? bounded : 0x1p-126f;
  return turns ? -size : size;
}

template <class V>
HQQ_INLINE State range_of(const Facts& facts, const SolveOptions& o) {
  const bool is_integer = o.zero_kind == ZeroKind::integer, is_symmetric = o.zero_kind == ZeroKind::symmetric;
  // A zero that is a code stands for a weight of 0, which the range has to hold.
  const float least = is_integer && facts.least > 0.0f ? 0.0f : facts.least;
  const float most = is_integer && facts.most < 0.0f ? 0.0f : facts.most;
  float inv_scale = is_symmetric         ? inv_scale_of_symmetric(facts, o.max_code)
                    : o.reference_guards ? inv_scale_of_reference(least, most, o.max_code)
                                         : inv_scale_of(least, most, facts.magnitude, o.max_code);
  float scale = 1.0f / inv_scale;
  if (o.scale_dtype != DType::f32) {
    scale = round_scale<V>(scale, o.scale_dtype);
    inv_scale = 1.0f / scale;
  }
  if (is_symmetric) return {inv_scale, scale, middle_code(o.max_code)};
  // 0 - x and x + 0, because the sign of a zero must not depend on how an instruction set orders or rounds -0 and +0.
  float zero = 0.0f - least * inv_scale;
  if (o.zero_kind == ZeroKind::rounded_start) {
    float lanes[kLanes];
    V::store(lanes, V::round(V::set(zero)));
    zero = lanes[0] + 0.0f;
  }
  if (is_integer) zero = whole_zero<V>(zero, o.max_code);
  return {inv_scale, scale, zero};
}

template <class V, size_t Size, bool Weighted>
HQQ_INLINE State range(const Group<V, Size, Weighted>& g, const SolveOptions& o) {
  return range_of<V>(g.facts, o);
}

// inv_scale_of, of sixteen groups.
template <class V>
HQQ_INLINE void inv_scales_of(const float* least, const float* most, const float* magnitude, float max_code,
                              float* inv_scale) {
  const auto half_range_f32 = V::sub(V::mul(V::load(most), V::set(0.5f)), V::mul(V::load(least), V::set(0.5f)));
  const auto wanted_f32 = V::mul(V::div(V::set(0.5f), half_range_f32), V::set(max_code));
  const auto limit_f32 = V::min(V::min(wanted_f32, V::div(V::set(1048576.0f), V::load(magnitude))), V::set(0x1p120f));
  V::store(inv_scale, V::max(limit_f32, V::set(0x1p-126f)));
  for (size_t g = 0; g < kLanes; ++g) inv_scale[g] = most[g] > least[g] ? inv_scale[g] : 1.0f;
}

// The ranges of a block's groups, to the same bits, sixteen at a time.
template <class V>
HQQ_NOINLINE void ranges(const Facts* facts, size_t count, const SolveOptions& o, State* now) {
  if (o.reference_guards) {
    for (size_t g = 0; g < count; ++g) now[g] = range_of<V>(facts[g], o);
    return;
  }
  const bool is_integer = o.zero_kind == ZeroKind::integer, is_symmetric = o.zero_kind == ZeroKind::symmetric;
  float least[kLanes] = {}, most[kLanes] = {}, magnitude[kLanes] = {}, inv_scale[kLanes], scale[kLanes], zero[kLanes];
  for (size_t g = 0; g < count; ++g) {
    least[g] = is_integer && facts[g].least > 0.0f ? 0.0f : facts[g].least;
    most[g] = is_integer && facts[g].most < 0.0f ? 0.0f : facts[g].most;
    magnitude[g] = facts[g].magnitude;
  }
  if (is_symmetric)
    for (size_t g = 0; g < kLanes; ++g) inv_scale[g] = g < count ? inv_scale_of_symmetric(facts[g], o.max_code) : 1.0f;
  else
    inv_scales_of<V>(least, most, magnitude, o.max_code, inv_scale);
  V::store(scale, V::div(V::set(1.0f), V::load(inv_scale)));
  if (o.scale_dtype != DType::f32) {
    float rounded_scale[kLanes];
    for (size_t g = 0; g < kLanes; ++g) rounded_scale[g] = scale[g];
    round_as_stored<V>(rounded_scale, o.scale_dtype);
    for (size_t g = 0; g < kLanes; ++g) scale[g] = storable(rounded_scale[g], scale[g]);
    V::store(inv_scale, V::div(V::set(1.0f), V::load(scale)));
  }
  auto zero_f32 = V::sub(V::set(0.0f), V::mul(V::load(least), V::load(inv_scale)));
  if (is_integer) zero_f32 = V::min(V::max(zero_f32, V::set(0.0f)), V::set(o.max_code));
  if (is_integer || o.zero_kind == ZeroKind::rounded_start) zero_f32 = V::add(V::round(zero_f32), V::set(0.0f));
  V::store(zero, is_symmetric ? V::set(middle_code(o.max_code)) : zero_f32);
  for (size_t g = 0; g < count; ++g) now[g] = {inv_scale[g], scale[g], zero[g]};
}

// Of a solver that starts from the range, and nowhere else.
struct FromRange {
  static constexpr int kStarts = 1;
  static constexpr bool kFromRange = true;

  template <class Group, class Parameters>
  HQQ_INLINE static State start(const Group& g, const SolveOptions& o, const Parameters&, int) {
    return range(g, o);
  }
};

}  // namespace hqq::kernels
