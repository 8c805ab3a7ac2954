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
// the group's size, known to the compiler: the loop over it unrolls, unless that would take too many registers.
template <class V, size_t Size, bool Unroll = true, class Step>
HQQ_INLINE void over_group(size_t size, Step step) {
  if constexpr (Size != 0 && !Unroll) {
    HQQ_NO_UNROLL
    for (size_t i = 0; i < Size; i += kLanes) step(i, kLanes);
  } else if constexpr (Size != 0) {
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

// Asks for half of what group g of a block is to ask for: twice, because only so many reads can be under way.
template <class V>
HQQ_INLINE void ask([[maybe_unused]] const Ahead& ahead, [[maybe_unused]] size_t g, [[maybe_unused]] size_t half) {
  [[maybe_unused]] constexpr size_t kLine = 64;
  if constexpr (simd::Prefetching<V>) {
    const std::byte* from = ahead.from + g * ahead.stride + half * (ahead.bytes / 2);
    for (size_t i = 0; i < ahead.bytes / 2; i += kLine) V::prefetch(from + i);
  }
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

  struct Ends {
    typename V::F32 least, most;  // of each lane
  };
  HQQ_INLINE Ends ends() const {
    auto least_f32 = V::load(weights), most_f32 = least_f32;
    over_weights([&](size_t i, size_t) HQQ_INLINE_LAMBDA {
      const auto weight_f32 = V::load(weights + i);
      least_f32 = V::min(least_f32, weight_f32);
      most_f32 = V::max(most_f32, weight_f32);
    });
    return {least_f32, most_f32};
  }

  // What is known of the weights before the solver starts.
  HQQ_INLINE void measure() const {
    const Ends found = ends();
    know(V::min_across(found.least), V::max_across(found.most));
  }
  HQQ_INLINE void know(float least, float most) const { facts = {least, most, -least > most ? -least : most, 0, 0}; }

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
  HQQ_INLINE void scale_weights() const { facts.sum_of_scaled = static_cast<double>(V::sum(scale_lanes())); }
  // Returns the sum of each lane.
  HQQ_INLINE typename V::F32 scale_lanes(const Ahead& ahead = {}, size_t g = 0) const {
    ask<V>(ahead, g, 0);
    const auto inv_scale_f32 = V::set(now.inv_scale);
    auto sum_f32 = V::set(0.0f);
    over_weights([&](size_t i, size_t lanes) HQQ_INLINE_LAMBDA {
      const auto scaled_f32 = V::mul(V::load(weights + i), inv_scale_f32);
      V::store(scaled + i, scaled_f32);
      sum_f32 = V::add(sum_f32, keep<V>(scaled_f32, lanes));
    });
    return sum_f32;
  }

  // How far the group reaches beyond the codes, in levels: the more of the two ends.
  HQQ_INLINE float overshoot(float max_code) const {
    const bool turned = now.inv_scale < 0;
    const float low = turned ? facts.most : facts.least, high = turned ? facts.least : facts.most;
    const float below = -(low * now.inv_scale + now.zero), above = (high * now.inv_scale + now.zero) - max_code;
    return below > above ? below : above;
  }
};

// What ends in one number a group is taken of four groups at a time: going across the lanes of four vectors together
// takes little more than across those of one. Calls take(first, count, vectors) with what vector_of(g) gives of count
// groups, at most four; the last places repeat the first where there are fewer.
inline constexpr size_t kTogether = 4;

template <class VectorOf, class Take>
HQQ_INLINE void in_fours(size_t groups, VectorOf vector_of, Take take) {
  for (size_t first = 0; first < groups; first += kTogether) {
    const size_t count = groups - first < kTogether ? groups - first : kTogether;
    decltype(vector_of(first)) vectors[kTogether];
    HQQ_NO_UNROLL
    for (size_t i = 0; i < count; ++i) vectors[i] = vector_of(first + i);
    for (size_t i = count; i < kTogether; ++i) vectors[i] = vectors[0];
    take(first, count, vectors);
  }
}

// The groups of a block.
template <class V, size_t Size, bool Weighted>
struct Groups {
  static constexpr bool kWeighted = Weighted;

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

  HQQ_NOINLINE void measure() {
    using Ends = typename Group<V, Size, Weighted>::Ends;
    in_fours(
        block.groups, [&](size_t g) HQQ_INLINE_LAMBDA { return (*this)[g].ends(); },
        [&](size_t first, size_t count, const Ends* e) HQQ_INLINE_LAMBDA {
          float least[kTogether], most[kTogether];
          V::min_four(e[0].least, e[1].least, e[2].least, e[3].least, least);
          V::max_four(e[0].most, e[1].most, e[2].most, e[3].most, most);
          for (size_t i = 0; i < count; ++i) (*this)[first + i].know(least[i], most[i]);
        });
  }

  HQQ_NOINLINE void scale_weights() {
    in_fours(
        block.groups, [&](size_t g) HQQ_INLINE_LAMBDA { return (*this)[g].scale_lanes(block.ahead, g); },
        [&](size_t first, size_t count, const typename V::F32* v) HQQ_INLINE_LAMBDA {
          float sums[kTogether];
          V::sum_four(v[0], v[1], v[2], v[3], sums);
          for (size_t i = 0; i < count; ++i) facts[first + i].sum_of_scaled = static_cast<double>(sums[i]);
        });
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
