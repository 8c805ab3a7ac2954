#pragma once
#include <arm_neon.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

// MSVC has the instruction's intrinsic for every target.
#if defined(__ARM_FEATURE_DOTPROD) || (defined(_MSC_VER) && !defined(__clang__))
#define HQQ_NEON_DOTPROD
#endif

// Integer dot products of neon.h's wrappers V.
namespace hqq::simd {

// Codes as signed bytes: those that do not fit are taken off 128. Without sdot, a lane's four products are added in two
// pairs.
template <class V, bool DotProd, int Bits>
struct NeonDot {
  static constexpr bool kSigned = (1 << Bits) - 1 > 127;
  using U32 = typename V::U32;
  using F32 = typename V::F32;
  static constexpr size_t kRun = 1024;
  struct Codes {
    int8x16_t q[4];
  };
  struct Sum {
    int32x4_t q[4];
  };
  struct EightSums {
    int32x4_t q[8];
  };
  using Run = std::conditional_t<DotProd, Sum, EightSums>;

  static Sum zero() { return {{vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)}}; }
  static Run start([[maybe_unused]] Sum sum) {
    if constexpr (DotProd) {
      return sum;
    } else {
      Run run;
      for (auto& q : run.q) q = vdupq_n_s32(0);
      return run;
    }
  }
  static Codes codes(U32 w) {
    Codes c;
    for (int i = 0; i < 4; ++i) {
      const uint8x16_t bytes = vreinterpretq_u8_u32(w.q[i]);
      c.q[i] = vreinterpretq_s8_u8(kSigned ? veorq_u8(bytes, vdupq_n_u8(0x80)) : bytes);
    }
    return c;
  }
  static Run add(Run run, const Codes& c, const int8_t* x) {
    const int8x16_t four = vreinterpretq_s8_s32(vld1q_dup_s32(reinterpret_cast<const int32_t*>(x)));
    for (int i = 0; i < 4; ++i) {
      if constexpr (DotProd) {
        run.q[i] = sdot(run.q[i], c.q[i], four);
      } else {
        run.q[2 * i] = vpadalq_s16(run.q[2 * i], vmull_s8(vget_low_s8(c.q[i]), vget_low_s8(four)));
        run.q[2 * i + 1] = vpadalq_s16(run.q[2 * i + 1], vmull_high_s8(c.q[i], four));
      }
    }
    return run;
  }
  static Sum fold([[maybe_unused]] Sum sum, const Run& run) {
    if constexpr (DotProd) {
      return run;
    } else {
      for (int i = 0; i < 4; ++i) sum.q[i] = vaddq_s32(sum.q[i], vpaddq_s32(run.q[2 * i], run.q[2 * i + 1]));
      return sum;
    }
  }
  static F32 total(Sum sum, int sum_of_x) {
    const int32x4_t taken = vdupq_n_s32(kSigned ? 128 * sum_of_x : 0);
    return V::each([&](int i) { return vcvtq_f32_s32(vaddq_s32(sum.q[i], taken)); });
  }

#if defined(HQQ_NEON_DOTPROD)
 private:
  static int32x4_t sdot(int32x4_t sum, int8x16_t a, int8x16_t b) { return vdotq_s32(sum, a, b); }
#endif
};

// usmmla multiplies a matrix of two outputs' eight codes with one of two rows' eight bytes of x: half of the
// instructions that sdot takes. Only for the file that is compiled for it.
template <class V>
struct NeonMatrixDot;
#if defined(HQQ_NEON_I8MM)
template <class V>
struct NeonMatrixDot {
  using U32 = typename V::U32;
  using F32 = typename V::F32;
  struct Codes {
    uint8x16_t q[8];  // outputs 2i and 2i + 1
  };
  struct Sum {
    int32x4_t q[8];  // output 2i with both rows, output 2i + 1 with both
  };

  // bytes[16][8] from two quads, bytes[2][16][4], the second of which may be missing
  static void lay_out(uint8_t* bytes, bool two) {
    auto* p = reinterpret_cast<uint32_t*>(bytes);
    const U32 even = V::load_words(p),
              odd = two ? V::load_words(p + 16) : V::each_u32([](int) { return vdupq_n_u32(0); });
    V::store_words(p, {{vzip1q_u32(even.q[0], odd.q[0]), vzip2q_u32(even.q[0], odd.q[0]),
                        vzip1q_u32(even.q[1], odd.q[1]), vzip2q_u32(even.q[1], odd.q[1])}});
    V::store_words(p + 16, {{vzip1q_u32(even.q[2], odd.q[2]), vzip2q_u32(even.q[2], odd.q[2]),
                             vzip1q_u32(even.q[3], odd.q[3]), vzip2q_u32(even.q[3], odd.q[3])}});
  }
  static Codes codes(const uint8_t* bytes) {
    Codes c;
    for (int i = 0; i < 8; ++i) c.q[i] = vld1q_u8(bytes + 16 * i);
    return c;
  }
  // Two rows' eight bytes, from those of two quads; of one row alone, twice.
  template <bool Two>
  static int8x16_t x(const int8_t* even, const int8_t* odd) {
    const auto *e = reinterpret_cast<const int32_t*>(even), *o = reinterpret_cast<const int32_t*>(odd);
    const int32x2_t none = vdup_n_s32(0), a = Two ? vld1_s32(e) : vld1_dup_s32(e),
                    b = Two ? vld1_s32(o) : vld1_dup_s32(o);
    return vreinterpretq_s8_s32(vzip1q_s32(vcombine_s32(a, none), vcombine_s32(b, none)));
  }
  static Sum zero() {
    Sum sum;
    for (auto& q : sum.q) q = vdupq_n_s32(0);
    return sum;
  }
  static Sum add(Sum sum, const Codes& c, int8x16_t x) {
    for (int i = 0; i < 8; ++i) sum.q[i] = usmmla(sum.q[i], c.q[i], x);
    return sum;
  }
  template <int Row>
  static F32 total(const Sum& sum) {
    return V::each([&](int i) {
      const int32x4_t a = sum.q[2 * i], b = sum.q[2 * i + 1];
      return vcvtq_f32_s32(Row == 0 ? vuzp1q_s32(a, b) : vuzp2q_s32(a, b));
    });
  }

 private:
  static int32x4_t usmmla(int32x4_t sum, uint8x16_t a, int8x16_t b) { return vusmmlaq_s32(sum, a, b); }
};
#endif

}  // namespace hqq::simd
