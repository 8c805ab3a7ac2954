#pragma once
#include "../../simd/simd.h"
#include "../table.h"

namespace hqq::kernels {

// Where a group stands: s, scale = 1 / s, which are negative only where zeros are symmetric, and the zero. Codes are
// clamp(round(w * s + zero), 0, max_code).
struct State {
  float inv_scale, scale, zero;
};

// Calls step(i, lanes) over a group, lanes being kLanes except in a last, partial vector. Size, where it is not 0, is
// the group's size, known to the compiler: the loop over it unrolls and the group stays in registers.
template <class V, size_t Size, class Step>
HQQ_INLINE void over_group(size_t size, Step step) {
  if constexpr (Size != 0) {
    for (size_t i = 0; i < Size; i += kLanes) step(i, kLanes);
  } else {
    const size_t full = size / kLanes * kLanes;
    for (size_t i = 0; i < full; i += kLanes) step(i, kLanes);
    if (full < size) step(full, size - full);
  }
}

template <class V>
HQQ_INLINE typename V::F32 keep(typename V::F32 v, size_t lanes) {
  return lanes == kLanes ? v : V::first(v, lanes);
}

// What is known of a group's weights. Sums are in double: they are per group, and cost nothing beside the weights.
struct Facts {
  float least, most, magnitude;
  double sum_of_scaled, sum_of_importance;  // of importance: 0 where all weights count alike
};

// A group of weights, and where it stands. What pads its last vector is a copy of its first element. Weighted: the
// weights may count differently.
template <class V, size_t Size, bool Weighted>
struct Group {
  static constexpr bool kWeighted = Weighted;

  const float* weights;
  float* scaled;      // weights * inv_scale
  float* importance;  // at most 1; of weighted groups
  size_t size;
  Facts& facts;
  State& now;

  // The group's size, known to the compiler where it is.
  constexpr size_t count() const { return Size != 0 ? Size : size; }

  // Calls step(i, lanes) over the weights.
  template <class Step>
  HQQ_INLINE void over_weights(Step step) const {
    over_group<V, Size>(size, step);
  }

  // What is known of the weights before the solver starts.
  HQQ_INLINE void measure() const {
    auto least_f32 = V::load(weights), most_f32 = least_f32;
    over_weights([&](size_t i, size_t) {
      const auto weight_f32 = V::load(weights + i);
      least_f32 = V::min(least_f32, weight_f32);
      most_f32 = V::max(most_f32, weight_f32);
    });
    const float least = V::min_across(least_f32), most = V::max_across(most_f32);
    facts = {least, most, -least > most ? -least : most, 0, 0};
  }

  // Makes the largest importance 1, so that sums neither overflow nor vanish. Where all are equal, zeros among them,
  // there is none: the group is solved as without, to the bit.
  void weigh() const {
    auto least_f32 = V::load(importance), most_f32 = least_f32;
    over_weights([&](size_t i, size_t) {
      least_f32 = V::min(least_f32, V::load(importance + i));
      most_f32 = V::max(most_f32, V::load(importance + i));
    });
    const float largest = V::max_across(most_f32);
    if (V::min_across(least_f32) == largest) return;
    auto sum_f32 = V::set(0.0f);
    over_weights([&](size_t i, size_t lanes) {
      const auto share_f32 = V::div(V::load(importance + i), V::set(largest));
      V::store(importance + i, share_f32);
      sum_f32 = V::add(sum_f32, keep<V>(share_f32, lanes));
    });
    facts.sum_of_importance = static_cast<double>(V::sum(sum_f32));
  }

  // To be called after `now.inv_scale` has changed.
  HQQ_INLINE void scale_weights() const {
    const auto inv_scale_f32 = V::set(now.inv_scale);
    auto sum_f32 = V::set(0.0f);
    over_weights([&](size_t i, size_t lanes) {
      const auto scaled_f32 = V::mul(V::load(weights + i), inv_scale_f32);
      V::store(scaled + i, scaled_f32);
      sum_f32 = V::add(sum_f32, keep<V>(scaled_f32, lanes));
    });
    facts.sum_of_scaled = static_cast<double>(V::sum(sum_f32));
  }

  // How far the group reaches beyond the codes, in levels: the more of the two ends.
  HQQ_INLINE float overshoot(float max_code) const {
    const bool turned = now.inv_scale < 0;
    const float low = turned ? facts.most : facts.least, high = turned ? facts.least : facts.most;
    const float below = -(low * now.inv_scale + now.zero), above = (high * now.inv_scale + now.zero) - max_code;
    return below > above ? below : above;
  }
};

// The groups of a block.
template <class V, size_t Size, bool Weighted>
struct Groups {
  explicit Groups(const Block& b) : block(b) {}

  const Block& block;
  Facts facts[kMaxBlock];
  State now[kMaxBlock];

  HQQ_INLINE Group<V, Size, Weighted> operator[](size_t g) {
    const size_t at = g * padded(block.size);
    return {block.weights + g * block.stride,
            block.scaled + at,
            Weighted ? block.importance + at : nullptr,
            block.size,
            facts[g],
            now[g]};
  }
};

// Where a group reaches less than half a level beyond the codes, rounding alone keeps to them. (At exactly half a
// level, half to even may go either way.)
inline constexpr float kInside = 0.5f;

// The nearest code. Without Clamp the caller knows that it lies in [0, max_code].
template <class V, bool Clamp>
HQQ_INLINE typename V::F32 encode(typename V::F32 scaled, typename V::F32 zero, typename V::F32 max_code) {
  const auto place = V::add(scaled, zero);
  if constexpr (!Clamp) return V::round(place);
  return V::round(V::min(V::max(place, V::set(0.0f)), max_code));
}

}  // namespace hqq::kernels
