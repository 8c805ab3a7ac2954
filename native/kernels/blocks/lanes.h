#pragma once
#include "../convert.h"

// Sixteen sub-blocks side by side: weight i of each lies in vector i. No sum goes across lanes, so every instruction
// set, and lib/backend/js/blocks, add in one order.
namespace hqq::kernels {

struct alignas(64) BlockLanes {
  float lane[kLanes];
  // Always inlined: a symbol of them would be shared by instruction sets.
  HQQ_INLINE float& operator[](size_t i) { return lane[i]; }
  HQQ_INLINE float operator[](size_t i) const { return lane[i]; }
};

// What codes of a scale and a minimum come to: w ~ scale * code - minimum. Times importance, where there is some.
struct BlockSums {
  BlockLanes error;                     // sum of (w - w')^2
  BlockLanes codes, squares, products;  // of q, q^2, q w
};

struct BlockStrip {
  const float* weights;     // [count][kLanes]
  const float* importance;  // likewise; null: all count alike
  size_t count;
};

struct BlockCodes {
  float low, high;
  bool curved;
};

// The place in kCurve of the number that is nearest, and that number. Halfway, the lower one.
template <class V>
HQQ_INLINE void nearest_of_curve(typename V::F32 t, typename V::F32& place, typename V::F32& number) {
  const auto zero = V::set(0.0f), one = V::set(1.0f), steep = V::set(1e30f);
  place = zero, number = V::set(static_cast<float>(kCurve[0]));
  HQQ_NO_UNROLL
  for (size_t k = 1; k < 16; ++k) {
    const float middle = static_cast<float>(kCurve[k - 1] + kCurve[k]) * 0.5f;
    // 1 above the middle, else 0: what is above is so by far more than 1e-30
    const auto above = V::min(V::max(V::mul(V::sub(t, V::set(middle)), steep), zero), one);
    place = V::add(place, above);
    number = V::add(number, V::mul(above, V::set(static_cast<float>(kCurve[k] - kCurve[k - 1]))));
  }
}

// The nearest codes for scales and minima, and what they come to. `codes`, unless null, gets them: [count][kLanes],
// with the bias.
template <class V, bool Weighted>
HQQ_INLINE void try_lanes(const BlockStrip& strip, const BlockCodes& range, const BlockLanes& scale,
                          const BlockLanes& minimum, BlockSums& sums, uint8_t* codes, float bias) {
  BlockLanes inverse;
  for (size_t i = 0; i < kLanes; ++i) {
    const float size = scale[i] < 0.0f ? -scale[i] : scale[i];
    inverse[i] = size > 1e-30f ? 1.0f / scale[i] : 0.0f;
  }
  const auto a = V::load(scale.lane), b = V::load(minimum.lane), inv = V::load(inverse.lane);
  const auto low = V::set(range.low), high = V::set(range.high);
  auto error = V::set(0.0f), sum = error, squares = error, products = error;
  const auto each = [&](size_t i, auto curved) HQQ_INLINE_LAMBDA {
    const auto w = V::load(strip.weights + i * kLanes);
    auto place = V::mul(V::add(w, b), inv), q = place;
    if constexpr (decltype(curved)::value) {
      nearest_of_curve<V>(place, place, q);
    } else {
      place = q = V::round(V::min(V::max(place, low), high));
    }
    const auto rest = V::sub(w, V::sub(V::mul(a, q), b));
    auto share = q, weighted = rest;
    if constexpr (Weighted) {
      const auto importance = V::load(strip.importance + i * kLanes);
      share = V::mul(importance, q), weighted = V::mul(importance, rest);
    }
    error = V::add(error, V::mul(weighted, rest));
    sum = V::add(sum, share);
    squares = V::add(squares, V::mul(share, q));
    products = V::add(products, V::mul(share, w));
    if (codes != nullptr) V::store_u8(codes + i * kLanes, V::add(place, V::set(bias)));
  };
  if (range.curved) {
    for (size_t i = 0; i < strip.count; ++i) each(i, std::true_type{});
  } else {
    for (size_t i = 0; i < strip.count; ++i) each(i, std::false_type{});
  }
  V::store(sums.error.lane, error);
  V::store(sums.codes.lane, sum);
  V::store(sums.squares.lane, squares);
  V::store(sums.products.lane, products);
}

template <class V>
HQQ_NOINLINE void try_codes(const BlockStrip& strip, const BlockCodes& range, const BlockLanes& scale,
                            const BlockLanes& minimum, BlockSums& sums, uint8_t* codes = nullptr, float bias = 0.0f) {
  if (strip.importance != nullptr)
    try_lanes<V, true>(strip, range, scale, minimum, sums, codes, bias);
  else
    try_lanes<V, false>(strip, range, scale, minimum, sums, codes, bias);
}

// What does not depend on codes.
struct BlockKnown {
  BlockLanes least, most;  // 0 lies between them or at an end, where minima may not be negative
  BlockLanes count, sum;   // of importance (or of weights), of w times it
};

template <class V>
HQQ_NOINLINE void know_lanes(const BlockStrip& strip, BlockKnown& to) {
  auto least = V::load(strip.weights), most = least;
  auto count = V::set(0.0f), sum = count;
  for (size_t i = 0; i < strip.count; ++i) {
    const auto w = V::load(strip.weights + i * kLanes);
    const auto share = strip.importance != nullptr ? V::load(strip.importance + i * kLanes) : V::set(1.0f);
    least = V::min(w, least), most = V::max(w, most);
    count = V::add(count, share), sum = V::add(sum, V::mul(share, w));
  }
  V::store(to.least.lane, least), V::store(to.most.lane, most);
  V::store(to.count.lane, count), V::store(to.sum.lane, sum);
}

}  // namespace hqq::kernels
