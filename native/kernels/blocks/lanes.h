#pragma once
#include "../convert.h"

// Sixteen sub-blocks side by side: weight i of each lies in vector i. No sum of weights goes across lanes, so every
// instruction set, and lib/backend/js/blocks, add in one order.
namespace hqq::kernels {

struct alignas(64) BlockLanes {
  float lane[kLanes];
  // Always inlined: a symbol of them would be shared by instruction sets.
  HQQ_INLINE float& operator[](size_t i) { return lane[i]; }
  HQQ_INLINE float operator[](size_t i) const { return lane[i]; }
};

// What codes q come to, times importance, where there is some: sums of q, q^2 and q w.
struct BlockSums {
  BlockLanes codes, squares, products;
};

struct BlockStrip {
  const float* weights;     // [count][kLanes]
  const float* importance;  // likewise; null: all count alike
  size_t count;
};

struct BlockCodes {
  float low, high;
  bool curved, minima;
};

// Adding it to a float below 2^22 in size, and taking it away, leaves a whole number: half to even.
inline constexpr float kRoundingBlocks = 12582912.0f;  // 1.5 * 2^23

template <class V>
HQQ_INLINE typename V::F32 whole_lanes(typename V::F32 v) {
  return V::sub(V::add(v, V::set(kRoundingBlocks)), V::set(kRoundingBlocks));
}

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

// 1 / scale; 0 where there is none.
HQQ_INLINE BlockLanes inverse_of(const BlockLanes& scale) {
  BlockLanes inverse;
  for (size_t i = 0; i < kLanes; ++i) {
    const float size = scale[i] < 0.0f ? -scale[i] : scale[i];
    const float whole = size > 1e-30f ? scale[i] : 1.0f;
    inverse[i] = size > 1e-30f ? 1.0f / whole : 0.0f;
  }
  return inverse;
}

// w ~ scale * number - minimum: the nearest codes of weights, as places and as numbers.
template <class V, bool Minima, bool Curved>
struct BlockPlacer {
  typename V::F32 inverse, offset, low, high;
  HQQ_INLINE BlockPlacer(const BlockCodes& range, const BlockLanes& scale, const BlockLanes& minimum) {
    const BlockLanes inv = inverse_of(scale);
    inverse = V::load(inv.lane), offset = V::mul(V::load(minimum.lane), inverse);
    low = V::set(range.low), high = V::set(range.high);
  }
  HQQ_INLINE void operator()(typename V::F32 w, typename V::F32& place, typename V::F32& number) const {
    place = V::mul(w, inverse);
    if constexpr (Minima) place = V::add(place, offset);
    if constexpr (Curved)
      nearest_of_curve<V>(place, place, number);
    else
      place = number = whole_lanes<V>(V::min(V::max(place, low), high));
  }
};

template <class V, bool Weighted, bool Minima, bool Curved>
HQQ_NOINLINE void sum_lanes(const BlockStrip& strip, const BlockCodes& range, const BlockLanes& scale,
                            const BlockLanes& minimum, BlockSums& to) {
  const BlockPlacer<V, Minima, Curved> placer(range, scale, minimum);
  auto codes = V::set(0.0f), squares = codes, products = codes;
  for (size_t i = 0; i < strip.count; ++i) {
    const auto w = V::load(strip.weights + i * kLanes);
    typename V::F32 place, q;
    placer(w, place, q);
    auto share = q;
    if constexpr (Weighted) share = V::mul(V::load(strip.importance + i * kLanes), q);
    codes = V::add(codes, share);
    // Sums of squares of numbers are whole and below 2^24: exact in one rounding or in two.
    if constexpr (Weighted)
      squares = V::add(squares, V::mul(share, q));
    else
      squares = V::fma(q, q, squares);
    products = V::add(products, V::mul(share, w));
  }
  V::store(to.codes.lane, codes), V::store(to.squares.lane, squares), V::store(to.products.lane, products);
}

// The nearest codes, and what they come to.
template <class V>
HQQ_INLINE void sum_codes(const BlockStrip& strip, const BlockCodes& range, const BlockLanes& scale,
                          const BlockLanes& minimum, BlockSums& to) {
  const auto of = [&](auto weighted) HQQ_INLINE_LAMBDA {
    constexpr bool kWeighted = decltype(weighted)::value;
    if (range.curved)
      sum_lanes<V, kWeighted, false, true>(strip, range, scale, minimum, to);
    else if (range.minima)
      sum_lanes<V, kWeighted, true, false>(strip, range, scale, minimum, to);
    else
      sum_lanes<V, kWeighted, false, false>(strip, range, scale, minimum, to);
  };
  if (strip.importance != nullptr)
    of(std::true_type{});
  else
    of(std::false_type{});
}

// Errors that codes leave, of weights that all count alike: sums of |w - w'|, (w - w')^2 and w^2.
struct BlockErrors {
  BlockLanes size, squares, whole;
};

// The nearest codes, with `bias`: [count][kLanes].
template <class V, bool Minima, bool Curved>
HQQ_NOINLINE void place_lanes(const BlockStrip& strip, const BlockCodes& range, const BlockLanes& scale,
                              const BlockLanes& minimum, float bias, uint8_t* codes, BlockErrors& to) {
  const BlockPlacer<V, Minima, Curved> placer(range, scale, minimum);
  const auto a = V::load(scale.lane), b = V::load(minimum.lane);
  auto size = V::set(0.0f), squares = size, whole = size;
  for (size_t i = 0; i < strip.count; ++i) {
    const auto w = V::load(strip.weights + i * kLanes);
    typename V::F32 place, q;
    placer(w, place, q);
    // As they are decoded
    const auto rest = V::sub(w, V::sub(V::mul(a, q), b));
    size = V::add(size, V::abs(rest));
    squares = V::add(squares, V::mul(rest, rest));
    whole = V::add(whole, V::mul(w, w));
    V::store_u8(codes + i * kLanes, V::add(place, V::set(bias)));
  }
  V::store(to.size.lane, size), V::store(to.squares.lane, squares), V::store(to.whole.lane, whole);
}

template <class V>
HQQ_INLINE void place_codes(const BlockStrip& strip, const BlockCodes& range, const BlockLanes& scale,
                            const BlockLanes& minimum, float bias, uint8_t* codes, BlockErrors& to) {
  if (range.curved)
    place_lanes<V, false, true>(strip, range, scale, minimum, bias, codes, to);
  else if (range.minima)
    place_lanes<V, true, false>(strip, range, scale, minimum, bias, codes, to);
  else
    place_lanes<V, false, false>(strip, range, scale, minimum, bias, codes, to);
}

// What does not depend on codes.
struct BlockKnown {
  BlockLanes least, most;
  BlockLanes count, inv_count, sum;  // of importance (or of weights), and 0 for 1 / 0; of w times it
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
  to.inv_count = inverse_of(to.count);
}

}  // namespace hqq::kernels
