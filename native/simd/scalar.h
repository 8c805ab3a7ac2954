#pragma once
#include <cstdint>
#include <cstring>

#include "four.h"
#include "simd.h"

namespace hqq::simd {

// Plain C++: the reference for the other wrappers, and what runs where there is none. Sixteen lanes are four fours.
struct Scalar {
  static constexpr const char* kName = "scalar";
  static constexpr const char* kDot = "plain";
  static constexpr size_t kBytes = 16;
  static constexpr size_t kTileRows = 2, kTileRows8 = 2, kTilePanels = 1, kRowPanels = 1, kFewRows = 1;
  struct F32 {
    four::F32 part[4];
  };
  struct U32 {
    four::U32 part[4];
  };
  using U8 = four::U8;

  // Four calls, not a loop, which compilers would have to unroll before they see what becomes of an array.
  template <class V, class Fn>
  HQQ_INLINE static V each(Fn fn) {
    return {{fn(0), fn(1), fn(2), fn(3)}};
  }
  template <class Fn>
  HQQ_INLINE static void for_each(Fn fn) {
    fn(0), fn(1), fn(2), fn(3);
  }

  static F32 load(const float* p) {
    return each<F32>([=](int i) HQQ_INLINE_LAMBDA { return four::load<four::F32>(p + 4 * i); });
  }
  static void store(float* p, F32 v) { std::memcpy(p, v.part, sizeof(v)); }
  static F32 set(float x) { return {{four::set(x), four::set(x), four::set(x), four::set(x)}}; }
  static F32 load_u8(const uint8_t* p) { return to_f32(words_of_u8(p)); }
  static void store_u8(uint8_t* p, F32 v) {
    const F32 inside = min(max(v, set(0.0f)), set(255.0f));  // NaN becomes 0: of it the conversion is undefined
    store_words_u8(p, each<U32>([&](int i) HQQ_INLINE_LAMBDA {
                     return four::bits<four::U32>(four::convert<four::I32>(inside.part[i]));
                   }));
  }
  static F32 load_f16(const uint16_t* p) {
    const U32 halves = words_of_u16(p);
    return each<F32>([&](int i) HQQ_INLINE_LAMBDA { return four::float_of_half(halves.part[i]); });
  }
  static F32 load_bf16(const uint16_t* p) {
    const U32 halves = words_of_u16(p);
    return each<F32>([&](int i) HQQ_INLINE_LAMBDA { return four::bits<four::F32>(halves.part[i] << 16u); });
  }
  static void store_f16(uint16_t* p, F32 v) {
    store_words_u16(p, each<U32>([&](int i) HQQ_INLINE_LAMBDA { return four::half_of_float(v.part[i]); }));
  }
  static void store_bf16(uint16_t* p, F32 v) {
    store_words_u16(p, each<U32>([&](int i) HQQ_INLINE_LAMBDA { return four::bfloat_of_float(v.part[i]); }));
  }

  static F32 add(F32 a, F32 b) {
    return each<F32>([&](int i) HQQ_INLINE_LAMBDA { return a.part[i] + b.part[i]; });
  }
  static F32 sub(F32 a, F32 b) {
    return each<F32>([&](int i) HQQ_INLINE_LAMBDA { return a.part[i] - b.part[i]; });
  }
  static F32 mul(F32 a, F32 b) {
    return each<F32>([&](int i) HQQ_INLINE_LAMBDA { return a.part[i] * b.part[i]; });
  }
  static F32 div(F32 a, F32 b) {
    return each<F32>([&](int i) HQQ_INLINE_LAMBDA { return a.part[i] / b.part[i]; });
  }
  static F32 min(F32 a, F32 b) {
    return each<F32>([&](int i) HQQ_INLINE_LAMBDA { return four::min(a.part[i], b.part[i]); });
  }
  static F32 max(F32 a, F32 b) {
    return each<F32>([&](int i) HQQ_INLINE_LAMBDA { return four::max(a.part[i], b.part[i]); });
  }
  static F32 round(F32 a) {
    return each<F32>([&](int i) HQQ_INLINE_LAMBDA { return four::round(a.part[i]); });
  }
  static F32 abs(F32 a) {
    return each<F32>([&](int i) HQQ_INLINE_LAMBDA { return four::abs(a.part[i]); });
  }
  static F32 copysign(F32 a, F32 b) {
    return each<F32>([&](int i) HQQ_INLINE_LAMBDA { return four::copysign(a.part[i], b.part[i]); });
  }
  static F32 first(F32 a, size_t n) {
    const int32_t count = static_cast<int32_t>(n);
    return each<F32>([&](int i) HQQ_INLINE_LAMBDA {
      const int32_t lane = 4 * i;
      return four::select(four::I32{lane, lane + 1, lane + 2, lane + 3} < count, a.part[i], four::set(0.0f));
    });
  }
  static F32 mantissa(F32 a) {
    return each<F32>([&](int i) HQQ_INLINE_LAMBDA {
      return four::bits<four::F32>((four::bits<four::U32>(a.part[i]) & 0x7fffffu) | 0x3f800000u);
    });
  }
  static F32 exponent(F32 a) {
    return each<F32>([&](int i) HQQ_INLINE_LAMBDA {
      return four::convert<four::F32>(four::bits<four::I32>(four::bits<four::U32>(a.part[i]) >> 23u) - 127);
    });
  }
  static F32 pow2(F32 a) {
    return each<F32>([&](int i) HQQ_INLINE_LAMBDA {
      return four::bits<four::F32>((four::bits<four::U32>(four::words(a.part[i])) + 127u) << 23u);
    });
  }
  static float sum(F32 v) {
    const four::F32 fours = (v.part[0] + v.part[2]) + (v.part[1] + v.part[3]);
    return (fours[0] + fours[2]) + (fours[1] + fours[3]);
  }
  static U32 add(U32 a, U32 b) {
    return each<U32>([&](int i) HQQ_INLINE_LAMBDA { return a.part[i] + b.part[i]; });
  }
  static U32 rounded_words(F32 v) {
    return each<U32>([&](int i)
                         HQQ_INLINE_LAMBDA { return four::bits<four::U32>(four::words(four::round(v.part[i]))); });
  }
  static double sum_words(U32 v) {
    uint64_t sum = 0;
    for (const four::U32& part : v.part)
      for (int i = 0; i < 4; ++i) sum += part[i];
    return static_cast<double>(sum);
  }
  static float min_across(F32 v) {
    const four::F32 least = four::min(four::min(v.part[0], v.part[2]), four::min(v.part[1], v.part[3]));
    const auto less = [](float a, float b) HQQ_INLINE_LAMBDA { return a < b ? a : b; };
    return less(less(least[0], least[2]), less(least[1], least[3]));
  }
  static float max_across(F32 v) {
    const four::F32 most = four::max(four::max(v.part[0], v.part[2]), four::max(v.part[1], v.part[3]));
    const auto more = [](float a, float b) HQQ_INLINE_LAMBDA { return a > b ? a : b; };
    return more(more(most[0], most[2]), more(most[1], most[3]));
  }
  static void sum_four(F32 a, F32 b, F32 c, F32 d, float* to) {
    to[0] = sum(a), to[1] = sum(b), to[2] = sum(c), to[3] = sum(d);
  }
  static void min_four(F32 a, F32 b, F32 c, F32 d, float* to) {
    to[0] = min_across(a), to[1] = min_across(b), to[2] = min_across(c), to[3] = min_across(d);
  }
  static void max_four(F32 a, F32 b, F32 c, F32 d, float* to) {
    to[0] = max_across(a), to[1] = max_across(b), to[2] = max_across(c), to[3] = max_across(d);
  }
  static void means_four(const U32& a, const U32& b, const U32& c, const U32& d, const double* less, double factor,
                         float* to) {
    const auto mean = [&](const U32& x, int i) HQQ_INLINE_LAMBDA {
      const four::U32 fours = (x.part[0] + x.part[1]) + (x.part[2] + x.part[3]);
      const uint32_t sum = fours[0] + fours[1] + fours[2] + fours[3];
      to[i] = static_cast<float>((static_cast<double>(static_cast<int32_t>(sum)) - less[i]) * factor);
    };
    mean(a, 0), mean(b, 1), mean(c, 2), mean(d, 3);
  }
  static uint32_t differ(const F32& a, const F32& b) {
    const auto masks = [&](int i) HQQ_INLINE_LAMBDA {
      return four::bits<four::U32>(a.part[i] != b.part[i]) & (four::U32{1, 2, 4, 8} << static_cast<uint32_t>(4 * i));
    };
    const four::U32 fours = (masks(0) | masks(1)) | (masks(2) | masks(3));
    return fours[0] | fours[1] | fours[2] | fours[3];
  }

  static U8 load_bytes(const uint8_t* p) { return four::load<U8>(p); }
  static void store_bytes(uint8_t* p, U8 v) { four::store(p, v); }
  static U32 load_words(const uint32_t* p) {
    return each<U32>([=](int i) HQQ_INLINE_LAMBDA { return four::load<four::U32>(p + 4 * i); });
  }
  static void store_words(uint32_t* p, U32 v) { std::memcpy(p, v.part, sizeof(v)); }
  static U32 words_of_u8(const uint8_t* p) { return widened(p); }
  static void store_words_u8(uint8_t* p, U32 v) { narrowed(v, p); }
  template <int Shift>
  static U8 shift_left(U8 v) {
    return v << uint8_t{Shift};
  }
  template <int Shift>
  static U32 shift_left(U32 v) {
    return each<U32>([&](int i) HQQ_INLINE_LAMBDA { return v.part[i] << uint32_t{Shift}; });
  }
  template <int Shift, uint32_t Mask>
  static U8 shift_mask(U8 v) {
    return (v >> uint8_t{Shift}) & static_cast<uint8_t>(Mask);
  }
  template <int Shift, uint32_t Mask>
  static U32 shift_mask(U32 v) {
    return each<U32>([&](int i) HQQ_INLINE_LAMBDA { return (v.part[i] >> uint32_t{Shift}) & Mask; });
  }
  static U8 merge(U8 a, U8 b) { return a | b; }
  static U32 merge(U32 a, U32 b) {
    return each<U32>([&](int i) HQQ_INLINE_LAMBDA { return a.part[i] | b.part[i]; });
  }
  static F32 fma(F32 a, F32 b, F32 c) { return add(mul(a, b), c); }  // no processor without one is fast at fusing them
  static F32 to_f32(U32 w) {
    return each<F32>([&](int i)
                         HQQ_INLINE_LAMBDA { return four::convert<four::F32>(four::bits<four::I32>(w.part[i])); });
  }

  struct PlainDot {
    static constexpr size_t kRun = 1024;
    using Codes = U32;
    struct Sum {
      four::I32 part[4];
    };
    using Run = Sum;

    static Sum zero() { return {}; }
    static Run start(Sum sum) { return sum; }
    static Codes codes(U32 w) { return w; }
    static Run add(Run run, const Codes& c, const int8_t* x) {
      return each<Run>([&](int i) HQQ_INLINE_LAMBDA {
        const four::U32 w = c.part[i];
        const auto product = [&](uint32_t k) HQQ_INLINE_LAMBDA {
          return four::bits<four::I32>((w >> 8 * k) & 0xffu) * static_cast<int32_t>(x[k]);
        };
        return run.part[i] + ((product(0) + product(1)) + (product(2) + product(3)));
      });
    }
    static Sum fold(Sum, Run run) { return run; }
    static F32 total(Sum sum, int) {
      return each<F32>([&](int i) HQQ_INLINE_LAMBDA { return four::convert<four::F32>(sum.part[i]); });
    }
  };
  template <int>
  using Dot = PlainDot;
  template <int>
  using RowsDot = PlainDot;

  template <class T>
  static void transpose16(const T* from, size_t from_stride, T* to, size_t to_stride) {
    for (size_t r = 0; r < 16; ++r)
      for (size_t c = 0; c < 16; ++c) to[c * to_stride + r] = from[r * from_stride + c];
  }

 private:
  template <class T>
  static U32 widened(const T* p) {
    return each<U32>([=](int i) HQQ_INLINE_LAMBDA {
      const T* four = p + 4 * i;
      return four::U32{four[0], four[1], four[2], four[3]};
    });
  }
  template <class T>
  static void narrowed(const U32& v, T* p) {
    for (int i = 0; i < 16; ++i) p[i] = static_cast<T>(v.part[i / 4][i % 4]);
  }
  static U32 words_of_u16(const uint16_t* p) { return widened(p); }
  static void store_words_u16(uint16_t* p, U32 v) { narrowed(v, p); }
};

static_assert(Simd<Scalar>);

}  // namespace hqq::simd
