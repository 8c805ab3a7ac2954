#pragma once
#include "../layers.h"
#include "table.h"

namespace hqq::kernels {

// Fake quantization: what a weight becomes by its code, and gradients through that, straight through the rounding.
//
//   level = round(w / scale + zero + offset)     code = clamp(level, 0, max_code)     w' = (code - zero) * scale
//
// The bits are those of every instruction set, and of JavaScript: nothing is fused, and sums go by lanes, or, where
// groups lie beside each other, along each.

// Groups that are treated at once: one whose weights lie along memory, or as many as there are lanes beside each other.
template <class V>
struct FakeLevels {
  typename V::F32 scale_f32, inverse_f32, zero_f32;
};

// A scale that is zero, or as good as that, stands for zeros: its inverse is no number.
HQQ_INLINE float inverse_scale(float scale) { return (scale < 0 ? -scale : scale) >= 0x1p-126f ? 1.0f / scale : 0.0f; }

// How the groups of a matrix are walked through.
template <class V>
struct AlongRows {
  const FakeGroups& g;
  static constexpr bool kBeside = false;

  // Calls body(first group, groups).
  template <class Body>
  HQQ_INLINE void for_groups(size_t first, size_t last, const Body& body) const {
    for (size_t group = first; group < last; ++group) body(group, size_t{1});
  }
  // Calls body(memory, offset) for each vector of the group's.
  template <class Body>
  HQQ_INLINE void for_vectors_of(size_t group, size_t, const Body& body) const {
    for_each_vector<V>(g.cols, [&](auto memory, size_t i) HQQ_INLINE_LAMBDA { body(memory, group * g.cols + i); });
  }
  static HQQ_INLINE typename V::F32 load(const float* p, size_t) { return V::set(*p); }
  // The sums of each group.
  static HQQ_INLINE void store_sums(typename V::F32 sums_f32, float* sums) { *sums = V::sum(sums_f32); }
};

template <class V>
struct BesideColumns {
  const FakeGroups& g;
  static constexpr bool kBeside = true;

  template <class Body>
  HQQ_INLINE void for_groups(size_t first, size_t last, const Body& body) const {
    for (size_t group = first; group < last; group += kLanes)
      body(group, last - group < kLanes ? last - group : kLanes);
  }
  template <class Body>
  HQQ_INLINE void for_vectors_of(size_t group, size_t count, const Body& body) const {
    if (count == kLanes)
      for (size_t r = 0; r < g.rows; ++r) body(Whole<V>{}, r * g.cols + group);
    else
      for (size_t r = 0; r < g.rows; ++r) body(Part<V>{count}, r * g.cols + group);
  }
  static HQQ_INLINE typename V::F32 load(const float* p, size_t count) {
    return count == kLanes ? V::load(p) : load_first<V>(p, count);
  }
  static HQQ_INLINE void store_sums(typename V::F32 sums_f32, float* sums) { V::store(sums, sums_f32); }
};

template <class V, class Walk>
HQQ_INLINE FakeLevels<V> levels_of(const float* scale, const float* zero, size_t count) {
  float inverse[kLanes] = {};
  for (size_t i = 0; i < count; ++i) inverse[i] = inverse_scale(scale[i]);
  return {Walk::load(scale, count), Walk::load(inverse, count), Walk::load(zero, count)};
}

// A vector of weights: in units of their scale, and as codes.
template <class V>
struct FakeVector {
  typename V::F32 scaled_f32, code_f32, inside_f32;  // 1 where the code is the level, 0 where it was clamped
};

template <class V>
HQQ_INLINE FakeVector<V> fake_vector(typename V::F32 weight_f32, typename V::F32 offset_f32,
                                     const FakeLevels<V>& levels, typename V::F32 most_f32) {
  const auto scaled_f32 = V::mul(weight_f32, levels.inverse_f32);
  const auto level_f32 = V::round(V::add(V::add(scaled_f32, levels.zero_f32), offset_f32));
  const auto code_f32 = V::min(V::max(level_f32, V::set(0.0f)), most_f32);
  const auto one_f32 = V::set(1.0f);
  // Levels are whole numbers: what lies apart is so by 1 or more.
  return {scaled_f32, code_f32, V::sub(one_f32, V::min(V::abs(V::sub(level_f32, code_f32)), one_f32))};
}

template <class V>
HQQ_INLINE typename V::F32 faked(typename V::F32 code_f32, const FakeLevels<V>& levels) {
  return V::mul(V::sub(code_f32, levels.zero_f32), levels.scale_f32);
}

template <class V, class Memory>
HQQ_INLINE typename V::F32 load_or_zero(const Memory& memory, const float* p, size_t at) {
  return p == nullptr ? V::set(0.0f) : memory.load(p + at);
}

template <class V>
HQQ_INLINE void store_codes(Whole<V>, uint8_t* p, typename V::F32 code_f32) {
  V::store_u8(p, code_f32);
}
template <class V>
HQQ_INLINE void store_codes(Part<V> part, uint8_t* p, typename V::F32 code_f32) {
  uint8_t codes[kLanes];
  V::store_u8(codes, code_f32);
  copy_lanes<V>(codes, part.count, p);
}
template <class V>
HQQ_INLINE typename V::F32 load_codes(Whole<V>, const uint8_t* p) {
  return V::load_u8(p);
}
template <class V>
HQQ_INLINE typename V::F32 load_codes(Part<V> part, const uint8_t* p) {
  uint8_t codes[kLanes] = {};
  copy_lanes<V>(p, part.count, codes);
  return V::load_u8(codes);
}

// Calls body(walk) with what goes along the groups' axis.
template <class V, class Body>
HQQ_INLINE void with_walk(const FakeGroups& g, const Body& body) {
  if (g.axis == 1)
    body(AlongRows<V>{g});
  else
    body(BesideColumns<V>{g});
}

template <class V>
void fake_quantize(const FakeGroups& g, const FakeOutputs& o, size_t first, size_t last) {
  const auto most_f32 = V::set(g.max_code);
  with_walk<V>(g, [&]<class Walk>(const Walk& walk) HQQ_INLINE_LAMBDA {
    walk.for_groups(first, last, [&](size_t group, size_t count) HQQ_INLINE_LAMBDA {
      const auto levels = levels_of<V, Walk>(g.scale + group, g.zero + group, count);
      walk.for_vectors_of(group, count, [&](auto memory, size_t i) HQQ_INLINE_LAMBDA {
        const auto offset_f32 = load_or_zero<V>(memory, g.offsets, i);
        const auto w = fake_vector<V>(memory.load(g.weights + i), offset_f32, levels, most_f32);
        if (o.out != nullptr) memory.store(o.out + i, faked<V>(w.code_f32, levels));
        if (o.codes != nullptr) store_codes<V>(memory, o.codes + i, w.code_f32);
      });
    });
  });
}

// Sums of a group, or of some beside each other, of a gradient times what w' grows by with the scale, and with the zero
// (but for a factor, -scale).
template <class V>
struct FakeSums {
  typename V::F32 scale_f32 = V::set(0.0f), zero_f32 = V::set(0.0f);

  HQQ_INLINE void add(typename V::F32 gradient_f32, typename V::F32 code_f32, typename V::F32 scaled_f32,
                      typename V::F32 inside_f32, typename V::F32 zero) {
    const auto by_scale_f32 = V::sub(V::sub(code_f32, zero), V::mul(inside_f32, scaled_f32));
    scale_f32 = V::add(scale_f32, V::mul(gradient_f32, by_scale_f32));
    zero_f32 = V::add(zero_f32, V::mul(gradient_f32, V::sub(V::set(1.0f), inside_f32)));
  }
};

template <class V>
void fake_gradient(const FakeGroups& g, const FakeGradients& o, size_t first, size_t last) {
  const auto most_f32 = V::set(g.max_code);
  with_walk<V>(g, [&]<class Walk>(const Walk& walk) HQQ_INLINE_LAMBDA {
    walk.for_groups(first, last, [&](size_t group, size_t count) HQQ_INLINE_LAMBDA {
      const auto levels = levels_of<V, Walk>(g.scale + group, g.zero + group, count);
      FakeSums<V> sums;
      walk.for_vectors_of(group, count, [&](auto memory, size_t i) HQQ_INLINE_LAMBDA {
        const auto gradient_f32 = memory.load(o.gradient + i);
        if (o.codes != nullptr) {  // given, and so no part of what is differentiated
          const auto none_f32 = V::set(0.0f);
          sums.add(gradient_f32, load_codes<V>(memory, o.codes + i), none_f32, none_f32, levels.zero_f32);
          return;
        }
        const auto offset_f32 = load_or_zero<V>(memory, g.offsets, i);
        const auto w = fake_vector<V>(memory.load(g.weights + i), offset_f32, levels, most_f32);
        sums.add(gradient_f32, w.code_f32, w.scaled_f32, w.inside_f32, levels.zero_f32);
        const auto through_f32 = V::mul(gradient_f32, w.inside_f32);
        if (o.of_weights != nullptr) memory.store(o.of_weights + i, through_f32);
        if (o.of_offsets != nullptr) memory.store(o.of_offsets + i, V::mul(through_f32, levels.scale_f32));
      });
      float of_scale[kLanes], of_zero[kLanes];
      Walk::store_sums(sums.scale_f32, of_scale), Walk::store_sums(sums.zero_f32, of_zero);
      for (size_t n = 0; n < count; ++n) {
        if (o.of_scale != nullptr) o.of_scale[group + n] = of_scale[n];
        if (o.of_zero != nullptr) o.of_zero[group + n] = 0.0f - g.scale[group + n] * of_zero[n];
      }
    });
  });
}

// 1, -1, or 0 where there is no sign to go by.
HQQ_INLINE float sign_of(float x) { return static_cast<float>(x > 0.0f) - static_cast<float>(x < 0.0f); }

HQQ_INLINE float clamped(float x, float least, float most) { return x < least ? least : x > most ? most : x; }

// Moves a group's scale and zero by a step against the gradient's sign.
template <class V>
HQQ_INLINE void step_group(const FakeGroups& g, const FakeStep& step, size_t group, float of_scale, float of_zero) {
  const float start = step.start_scale[group], scale = g.scale[group];
  const float factor = step.factor[group] - step.factor_step * (sign_of(of_scale) * sign_of(start));
  step.factor[group] = clamped(factor, 1.0f - step.factor_range, 1.0f + step.factor_range);
  step.scale[group] = start * step.factor[group];
  if (step.zero_kind == ZeroKind::symmetric) return;
  const float shift = step.shift[group] + step.shift_step * (sign_of(of_zero) * sign_of(scale));
  step.shift[group] = clamped(shift, 0.0f - step.shift_range, step.shift_range);
  const float zero = step.start_zero[group] + step.shift[group];
  step.zero[group] = zero;
  if (step.zero_kind != ZeroKind::integer) return;
  float lanes[kLanes];
  V::store(lanes, V::round(V::set(clamped(zero, 0.0f, g.max_code))));
  step.zero[group] = lanes[0] + 0.0f;
}

// The gradient's signs, but for what was clamped: 1, -1, or 0 where there is none.
template <class V>
HQQ_INLINE typename V::F32 signs_through(typename V::F32 gradient_f32, typename V::F32 inside_f32) {
  // The smallest float there is becomes 2^1, in two steps that are powers of floats.
  const auto grown_f32 = V::mul(V::mul(V::abs(gradient_f32), V::set(0x1p126f)), V::set(0x1p24f));
  return V::copysign(V::mul(V::min(grown_f32, V::set(1.0f)), inside_f32), gradient_f32);
}

template <class V>
void fake_step(const FakeGroups& g, const FakeStep& step, size_t first, size_t last) {
  const auto most_f32 = V::set(g.max_code), least_offset_f32 = V::set(-0.5f), most_offset_f32 = V::set(0.5f);
  with_walk<V>(g, [&]<class Walk>(const Walk& walk) HQQ_INLINE_LAMBDA {
    walk.for_groups(first, last, [&](size_t group, size_t count) HQQ_INLINE_LAMBDA {
      const auto levels = levels_of<V, Walk>(g.scale + group, g.zero + group, count);
      float steps[kLanes] = {};
      for (size_t n = 0; n < count; ++n) steps[n] = step.offset_step * sign_of(g.scale[group + n]);
      const auto step_f32 = Walk::load(steps, count);
      FakeSums<V> sums;
      walk.for_vectors_of(group, count, [&](auto memory, size_t i) HQQ_INLINE_LAMBDA {
        const auto gradient_f32 = memory.load(step.gradient + i), offset_f32 = memory.load(step.offsets + i);
        const auto w = fake_vector<V>(memory.load(g.weights + i), offset_f32, levels, most_f32);
        sums.add(gradient_f32, w.code_f32, w.scaled_f32, w.inside_f32, levels.zero_f32);
        const auto moved_f32 = V::sub(offset_f32, V::mul(signs_through<V>(gradient_f32, w.inside_f32), step_f32));
        memory.store(step.offsets + i, V::min(V::max(moved_f32, least_offset_f32), most_offset_f32));
      });
      float of_scale[kLanes], of_zero[kLanes];
      Walk::store_sums(sums.scale_f32, of_scale), Walk::store_sums(sums.zero_f32, of_zero);
      for (size_t n = 0; n < count; ++n) step_group<V>(g, step, group + n, of_scale[n], of_zero[n]);
      // The group is near still.
      const auto moved = levels_of<V, Walk>(step.scale + group, step.zero + group, count);
      walk.for_vectors_of(group, count, [&](auto memory, size_t i) HQQ_INLINE_LAMBDA {
        const auto w = fake_vector<V>(memory.load(g.weights + i), memory.load(step.offsets + i), moved, most_f32);
        memory.store(step.out + i, faked<V>(w.code_f32, moved));
      });
    });
  });
}

template <class V>
constexpr FakeKernels make_fake() {
  return {.quantize = &fake_quantize<V>, .gradient = &fake_gradient<V>, .step = &fake_step<V>};
}

}  // namespace hqq::kernels
