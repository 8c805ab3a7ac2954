#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "simd.h"

namespace hqq::simd {

// Plain C++: the reference for the other wrappers, and what runs where there is none.
struct Scalar {
  static constexpr const char* kName = "scalar";
  static constexpr const char* kDot = "plain";
  static constexpr size_t kBytes = 16;
  static constexpr size_t kTileRows = 2, kTileRows8 = 2, kTilePanels = 1, kRowPanels = 1;
  struct F32 {
    float lane[16];
  };
  struct U32 {
    uint32_t lane[16];
  };
  struct U8 {
    uint8_t lane[16];
  };

  template <class To, class From>
  static To bits(From from) {
    To to;
    static_assert(sizeof(to) == sizeof(from));
    std::memcpy(&to, &from, sizeof(to));
    return to;
  }
  template <class Fn>
  static F32 each(Fn fn) {
    F32 v;
    for (int i = 0; i < 16; ++i) v.lane[i] = fn(i);
    return v;
  }
  template <class Vector, class Fn>
  static Vector map(Vector v, Fn fn) {
    for (auto& lane : v.lane) lane = fn(lane);
    return v;
  }

  static F32 load(const float* p) {
    F32 v;
    std::memcpy(v.lane, p, sizeof(v));
    return v;
  }
  static void store(float* p, F32 v) { std::memcpy(p, v.lane, sizeof(v)); }
  static F32 set(float x) {
    return each([=](int) { return x; });
  }
  static F32 load_u8(const uint8_t* p) {
    return each([=](int i) { return static_cast<float>(p[i]); });
  }
  static void store_u8(uint8_t* p, F32 v) {
    // Of NaN, and of what no byte holds, the conversion is undefined: both come up in groups that are refused later.
    for (int i = 0; i < 16; ++i) {
      const float above = v.lane[i] > 0 ? v.lane[i] : 0.0f;
      p[i] = static_cast<uint8_t>(above < 255 ? above : 255.0f);
    }
  }
  static F32 load_f16(const uint16_t* p) {
    return each([=](int i) { return float_of_half(p[i]); });
  }
  static F32 load_bf16(const uint16_t* p) {
    return each([=](int i) { return bits<float>(static_cast<uint32_t>(p[i]) << 16); });
  }
  static void store_f16(uint16_t* p, F32 v) {
    for (int i = 0; i < 16; ++i) p[i] = half_of_float(v.lane[i]);
  }
  static void store_bf16(uint16_t* p, F32 v) {
    for (int i = 0; i < 16; ++i) {
      const uint32_t u = bits<uint32_t>(v.lane[i]);
      const bool nan = (u & 0x7fffffffu) > 0x7f800000u;
      p[i] = static_cast<uint16_t>(nan ? (u >> 16) | 0x40 : (u + 0x7fff + ((u >> 16) & 1)) >> 16);
    }
  }

  static F32 add(F32 a, F32 b) {
    return each([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static F32 sub(F32 a, F32 b) {
    return each([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static F32 mul(F32 a, F32 b) {
    return each([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static F32 div(F32 a, F32 b) {
    return each([&](int i) { return a.lane[i] / b.lane[i]; });
  }
  static F32 min(F32 a, F32 b) {
    return each([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static F32 max(F32 a, F32 b) {
    return each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static F32 round(F32 a) {
    // Adding and taking away 1.5 * 2^23 rounds to a whole number; beyond 2^22 there may be nothing to round or no room.
    return map(a, [](float x) {
      constexpr float kMagic = 12582912.0f;
      return x > -4194304.0f && x < 4194304.0f ? (x + kMagic) - kMagic : std::nearbyint(x);
    });
  }
  static F32 abs(F32 a) {
    return map(a, [](float x) { return bits<float>(bits<uint32_t>(x) & 0x7fffffffu); });
  }
  static F32 copysign(F32 a, F32 b) {
    return each([&](int i) {
      return bits<float>((bits<uint32_t>(a.lane[i]) & 0x7fffffffu) | (bits<uint32_t>(b.lane[i]) & 0x80000000u));
    });
  }
  static F32 first(F32 a, size_t n) {
    for (size_t i = n; i < 16; ++i) a.lane[i] = 0.0f;
    return a;
  }
  static F32 mantissa(F32 a) {
    return map(a, [](float x) { return bits<float>((bits<uint32_t>(x) & 0x7fffffu) | 0x3f800000u); });
  }
  static F32 exponent(F32 a) {
    return map(a, [](float x) { return static_cast<float>(static_cast<int32_t>(bits<uint32_t>(x) >> 23) - 127); });
  }
  static F32 pow2(F32 a) {
    return map(a, [](float k) {
      const int32_t whole = std::isnan(k) ? 0 : static_cast<int32_t>(k);  // of NaN the conversion is undefined
      return bits<float>(static_cast<uint32_t>(whole + 127) << 23);
    });
  }
  static float sum(F32 v) {
    for (int width = 8; width > 0; width /= 2)
      for (int i = 0; i < width; ++i) v.lane[i] += v.lane[i + width];
    return v.lane[0];
  }
  static U32 add(U32 a, U32 b) {
    for (int i = 0; i < 16; ++i) a.lane[i] += b.lane[i];
    return a;
  }
  static U32 rounded_words(F32 v) {
    const F32 whole = round(v);
    U32 words;
    for (int i = 0; i < 16; ++i) {
      // What no word can hold (a NaN, of a group that is refused later) must not reach the conversion.
      const float x = whole.lane[i] > -2147483648.0f && whole.lane[i] < 2147483648.0f ? whole.lane[i] : 0.0f;
      words.lane[i] = static_cast<uint32_t>(static_cast<int32_t>(x));
    }
    return words;
  }
  static double sum_words(U32 v) {
    double sum = 0;
    for (const uint32_t lane : v.lane) sum += lane;
    return sum;
  }
  static float min_across(F32 v) {
    float least = v.lane[0];
    for (float x : v.lane) least = x < least ? x : least;
    return least;
  }
  static float max_across(F32 v) {
    float most = v.lane[0];
    for (float x : v.lane) most = x > most ? x : most;
    return most;
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
    const auto mean = [&](const U32& x, int i) {
      uint32_t sum = 0;
      for (const uint32_t lane : x.lane) sum += lane;
      to[i] = static_cast<float>((static_cast<double>(static_cast<int32_t>(sum)) - less[i]) * factor);
    };
    mean(a, 0), mean(b, 1), mean(c, 2), mean(d, 3);
  }
  static uint32_t differ(const F32& a, const F32& b) {
    uint32_t mask = 0;
    for (int i = 0; i < 16; ++i) mask |= static_cast<uint32_t>(a.lane[i] != b.lane[i]) << i;
    return mask;
  }

  static U8 load_bytes(const uint8_t* p) { return bits<U8>(*reinterpret_cast<const U8*>(p)); }
  static void store_bytes(uint8_t* p, U8 v) { std::memcpy(p, v.lane, sizeof(v)); }
  static U32 load_words(const uint32_t* p) {
    U32 v;
    std::memcpy(v.lane, p, sizeof(v));  // from anywhere: some are bytes to whoever calls
    return v;
  }
  static void store_words(uint32_t* p, U32 v) { std::memcpy(p, v.lane, sizeof(v)); }
  static U32 words_of_u8(const uint8_t* p) {
    U32 v;
    for (int i = 0; i < 16; ++i) v.lane[i] = p[i];
    return v;
  }
  static void store_words_u8(uint8_t* p, U32 v) {
    for (int i = 0; i < 16; ++i) p[i] = static_cast<uint8_t>(v.lane[i]);
  }
  template <int Shift, class Vector>
  static Vector shift_left(Vector v) {
    return map(v, [](auto x) { return static_cast<decltype(x)>(x << Shift); });
  }
  template <int Shift, uint32_t Mask, class Vector>
  static Vector shift_mask(Vector v) {
    return map(v, [](auto x) { return static_cast<decltype(x)>((x >> Shift) & Mask); });
  }
  template <class Vector>
  static Vector merge(Vector a, Vector b) {
    for (int i = 0; i < 16; ++i) a.lane[i] |= b.lane[i];
    return a;
  }
  static F32 fma(F32 a, F32 b, F32 c) { return add(mul(a, b), c); }  // no processor without one is fast at fusing them
  static F32 to_f32(U32 w) {
    return each([&](int i) { return static_cast<float>(static_cast<int32_t>(w.lane[i])); });
  }

  struct PlainDot {
    static constexpr size_t kRun = 1024;
    using Codes = U32;
    struct Sum {
      int32_t lane[16];
    };
    using Run = Sum;

    static Sum zero() { return {}; }
    static Run start(Sum sum) { return sum; }
    static Codes codes(U32 w) { return w; }
    static Run add(Run run, const Codes& c, const int8_t* x) {
      uint8_t code[64];
      std::memcpy(code, c.lane, sizeof(code));
      for (int i = 0; i < 16; ++i)
        for (int k = 0; k < 4; ++k) run.lane[i] += code[4 * i + k] * x[k];
      return run;
    }
    static Sum fold(Sum, Run run) { return run; }
    static F32 total(Sum sum, int) {
      return each([&](int i) { return static_cast<float>(sum.lane[i]); });
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
  static float float_of_half(uint16_t h) {
    const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16, rest = h & 0x7fffu;
    if (rest >= 0x7c00u)
      return bits<float>(sign | 0x7f800000u | (rest & 0x3ffu) << 13 | (rest > 0x7c00u ? 1u << 22 : 0));
    if (rest >= 0x400u) return bits<float>(sign | ((rest << 13) + (112u << 23)));
    const float subnormal = static_cast<float>(rest) * 5.9604644775390625e-8f;  // 2^-24
    return bits<float>(sign | bits<uint32_t>(subnormal));
  }
  static uint16_t half_of_float(float x) {
    const uint32_t u = bits<uint32_t>(x), sign = (u >> 16) & 0x8000u, rest = u & 0x7fffffffu;
    if (rest > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((rest >> 13) & 0x3ffu));
    if (rest >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to 2^16: infinity
    if (rest >= 0x38800000u) {                                              // normal: shift, half to even
      const uint32_t shifted = rest - (112u << 23);
      return static_cast<uint16_t>(sign | ((shifted + 0xfffu + ((shifted >> 13) & 1)) >> 13));
    }
    // Subnormal: adding 0.5 leaves units of 2^-24 in the low bits of the sum, rounded by the addition itself.
    const float sum = bits<float>(rest) + 0.5f;
    return static_cast<uint16_t>(sign | (bits<uint32_t>(sum) - 0x3f000000u));
  }
};

static_assert(Simd<Scalar>);

}  // namespace hqq::simd
