#pragma once
#include "convert.h"

// The least and the greatest weights of groups. Of a group that holds a NaN they may be anything.
//
// 0 is added to each: which of -0 and +0 is the lesser depends on the instruction set.
namespace hqq::kernels {

// Groups of `size` weights each, one after the other.
template <class V, class T>
void extremes_of(const void* from, size_t groups, size_t size, float* least, float* most) {
  using Memory = typename T::Memory;
  const auto* in = static_cast<const Memory*>(from);
  const size_t full = size / kLanes * kLanes;
  for (size_t g = 0; g < groups; ++g, in += size) {
    Memory lanes[kLanes];
    if (full < size) {
      for (Memory& lane : lanes) lane = in[full];  // what fills up the last vector changes nothing
      copy_lanes<V>(in + full, size - full, lanes);
    }
    auto least_f32 = T::template load<V>(full > 0 ? in : lanes), most_f32 = least_f32;
    const auto take = [&](typename V::F32 weight_f32) {
      least_f32 = V::min(least_f32, weight_f32);
      most_f32 = V::max(most_f32, weight_f32);
    };
    for (size_t i = kLanes; i < full; i += kLanes) take(T::template load<V>(in + i));
    if (full < size) take(T::template load<V>(lanes));
    least[g] = V::min_across(least_f32) + 0.0f;
    most[g] = V::max_across(most_f32) + 0.0f;
  }
}

// One more weight of each of `count` groups that lie side by side: least = min(least, weights + 0), most likewise.
template <class V>
void take_extremes(const float* weights, size_t count, float* least, float* most) {
  for_vectors<V>(
      count,
      [&](size_t i) {
        const auto weight_f32 = V::add(V::load(weights + i), V::set(0.0f));
        V::store(least + i, V::min(V::load(least + i), weight_f32));
        V::store(most + i, V::max(V::load(most + i), weight_f32));
      },
      [&](size_t i, size_t rest) {
        for (size_t end = i + rest; i < end; ++i) {
          const float weight = weights[i] + 0.0f;
          least[i] = weight < least[i] ? weight : least[i];
          most[i] = weight > most[i] ? weight : most[i];
        }
      });
}

}  // namespace hqq::kernels
