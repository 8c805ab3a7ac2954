#pragma once
#include <arm_neon.h>

#include <cstdint>
#include <type_traits>

#include "neon-dot.h"
#include "simd.h"

namespace hqq::simd {

// NEON of AArch64: four q registers, lanes 0..3 in q[0]. With DotProd, integer dot products use FEAT_DotProd, with I8mm
// those of many rows FEAT_I8MM: types of their own, so that no function of one is ever taken for another's.
template <bool DotProd, bool I8mm>
struct NeonOf {
#if !defined(HQQ_NEON_DOTPROD)
  static_assert(!DotProd, "NeonDotProd is for files that are compiled for FEAT_DotProd");
#endif
#if !defined(HQQ_NEON_I8MM)
  static_assert(!I8mm, "NeonI8mm is for files that are compiled for FEAT_I8MM");
#endif
  static constexpr const char* kName = "neon";
  static constexpr const char* kDot = I8mm ? "i8mm" : DotProd ? "sdot" : "smull";
  static constexpr size_t kBytes = 16;
  static constexpr size_t kTileRows = 6, kTileRows8 = 4, kTilePanels = 1, kRowPanels = 1, kFewRows = 1;
  struct F32 {
    float32x4_t q[4];
  };
  struct U32 {
    uint32x4_t q[4];
  };
  using U8 = uint8x16_t;

  template <class Fn>
  static F32 each(Fn fn) {
    return {{fn(0), fn(1), fn(2), fn(3)}};
  }
  template <class Fn>
  static U32 each_u32(Fn fn) {
    return {{fn(0), fn(1), fn(2), fn(3)}};
  }

  static F32 load(const float* p) {
    return each([=](int i) { return vld1q_f32(p + 4 * i); });
  }
  static void store(float* p, F32 v) {
    for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, v.q[i]);
  }
  static F32 set(float x) {
    return each([=](int) { return vdupq_n_f32(x); });
  }
  static F32 load_u8(const uint8_t* p) {
    const U32 w = words_of_u8(p);
    return each([&](int i) { return vcvtq_f32_u32(w.q[i]); });
  }
  static void store_u8(uint8_t* p, F32 v) {
    store_words_u8(p, each_u32([&](int i) { return vcvtq_u32_f32(v.q[i]); }));
  }
  static F32 load_f16(const uint16_t* p) {
    return each([=](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); });
  }
  static F32 load_bf16(const uint16_t* p) {
    return each([=](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)); });
  }
  static void store_f16(uint16_t* p, F32 v) {
    for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(v.q[i])));
  }
  static void store_bf16(uint16_t* p, F32 v) {
    for (int i = 0; i < 4; ++i) {
      const uint32x4_t u = vreinterpretq_u32_f32(v.q[i]), top = vshrq_n_u32(u, 16);
      const uint32x4_t odd = vandq_u32(top, vdupq_n_u32(1));
      const uint32x4_t rounded = vshrq_n_u32(vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff))), 16);
      const uint32x4_t quiet = vorrq_u32(top, vdupq_n_u32(0x40));
      vst1_u16(p + 4 * i, vmovn_u32(vbslq_u32(vceqq_f32(v.q[i], v.q[i]), rounded, quiet)));
    }
  }

  static F32 add(F32 a, F32 b) {
    return each([&](int i) { return vaddq_f32(a.q[i], b.q[i]); });
  }
  static F32 sub(F32 a, F32 b) {
    return each([&](int i) { return vsubq_f32(a.q[i], b.q[i]); });
  }
  static F32 mul(F32 a, F32 b) {
    return each([&](int i) { return vmulq_f32(a.q[i], b.q[i]); });
  }
  static F32 div(F32 a, F32 b) {
    return each([&](int i) { return vdivq_f32(a.q[i], b.q[i]); });
  }
  // A compare and a select, not vminq and vmaxq: those return NaN where either operand is one.
  static F32 min(F32 a, F32 b) {
    return each([&](int i) { return vbslq_f32(vcltq_f32(a.q[i], b.q[i]), a.q[i], b.q[i]); });
  }
  static F32 max(F32 a, F32 b) {
    return each([&](int i) { return vbslq_f32(vcgtq_f32(a.q[i], b.q[i]), a.q[i], b.q[i]); });
  }
  static F32 round(F32 a) {
    return each([&](int i) { return vrndnq_f32(a.q[i]); });
  }
  static F32 abs(F32 a) {
    return each([&](int i) { return vabsq_f32(a.q[i]); });
  }
  static F32 copysign(F32 a, F32 b) {
    return each([&](int i) { return vbslq_f32(vdupq_n_u32(0x7fffffff), a.q[i], b.q[i]); });
  }
  static F32 first(F32 a, size_t n) {
    constexpr uint32_t kLane[] = {0, 1, 2, 3};
    return each([&](int i) {
      const uint32x4_t lane = vaddq_u32(vld1q_u32(kLane), vdupq_n_u32(4u * static_cast<uint32_t>(i)));
      const uint32x4_t keep = vcltq_u32(lane, vdupq_n_u32(static_cast<uint32_t>(n)));
      return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a.q[i]), keep));
    });
  }
  static F32 mantissa(F32 a) {
    return each([&](int i) {
      const uint32x4_t fraction = vandq_u32(vreinterpretq_u32_f32(a.q[i]), vdupq_n_u32(0x7fffff));
      return vreinterpretq_f32_u32(vorrq_u32(fraction, vdupq_n_u32(0x3f800000)));
    });
  }
  static F32 exponent(F32 a) {
    return each([&](int i) {
      const int32x4_t biased = vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_f32(a.q[i]), 23));
      return vcvtq_f32_s32(vsubq_s32(biased, vdupq_n_s32(127)));
    });
  }
  static F32 pow2(F32 a) {
    return each([&](int i) {
      return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(a.q[i]), vdupq_n_s32(127)), 23));
    });
  }
  static float sum(F32 v) {
    const float32x4_t s4 = vaddq_f32(vaddq_f32(v.q[0], v.q[2]), vaddq_f32(v.q[1], v.q[3]));
    const float32x2_t s2 = vadd_f32(vget_low_f32(s4), vget_high_f32(s4));
    return vget_lane_f32(s2, 0) + vget_lane_f32(s2, 1);
  }
  static U32 add(U32 a, U32 b) {
    return each_u32([&](int i) { return vaddq_u32(a.q[i], b.q[i]); });
  }
  static U32 rounded_words(F32 v) {
    return each_u32([&](int i) { return vreinterpretq_u32_s32(vcvtnq_s32_f32(v.q[i])); });
  }
  static double sum_words(U32 v) {
    const uint64x2_t s2 = vaddq_u64(vaddq_u64(vpaddlq_u32(v.q[0]), vpaddlq_u32(v.q[1])),
                                    vaddq_u64(vpaddlq_u32(v.q[2]), vpaddlq_u32(v.q[3])));
    return static_cast<double>(vaddvq_u64(s2));
  }
  static float min_across(F32 v) { return vminvq_f32(vminq_f32(vminq_f32(v.q[0], v.q[1]), vminq_f32(v.q[2], v.q[3]))); }
  static float max_across(F32 v) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(v.q[0], v.q[1]), vmaxq_f32(v.q[2], v.q[3]))); }
  static void sum_four(F32 a, F32 b, F32 c, F32 d, float* to) {
    to[0] = sum(a), to[1] = sum(b), to[2] = sum(c), to[3] = sum(d);
  }
  static void min_four(F32 a, F32 b, F32 c, F32 d, float* to) {
    to[0] = min_across(a), to[1] = min_across(b), to[2] = min_across(c), to[3] = min_across(d);
  }
  static void max_four(F32 a, F32 b, F32 c, F32 d, float* to) {
    to[0] = max_across(a), to[1] = max_across(b), to[2] = max_across(c), to[3] = max_across(d);
  }
  static void means_four(U32 a, U32 b, U32 c, U32 d, const double* less, double factor, float* to) {
    const auto mean = [&](U32 x, int i) {
      const uint32_t sum = vaddvq_u32(vaddq_u32(vaddq_u32(x.q[0], x.q[1]), vaddq_u32(x.q[2], x.q[3])));
      to[i] = static_cast<float>((static_cast<double>(static_cast<int32_t>(sum)) - less[i]) * factor);
    };
    mean(a, 0), mean(b, 1), mean(c, 2), mean(d, 3);
  }
  static uint32_t differ(F32 a, F32 b) {
    constexpr uint32_t kBits[] = {1, 2, 4, 8};
    uint32_t mask = 0;
    for (int i = 0; i < 4; ++i) mask |= vaddvq_u32(vbicq_u32(vld1q_u32(kBits), vceqq_f32(a.q[i], b.q[i]))) << 4 * i;
    return mask;
  }

  static U8 load_bytes(const uint8_t* p) { return vld1q_u8(p); }
  static void store_bytes(uint8_t* p, U8 v) { vst1q_u8(p, v); }
#if defined(__GNUC__)
  static void prefetch(const void* p) { __builtin_prefetch(p); }
#endif
  static U32 load_words(const uint32_t* p) {
    return each_u32([=](int i) { return vld1q_u32(p + 4 * i); });
  }
  static void store_words(uint32_t* p, U32 v) {
    for (int i = 0; i < 4; ++i) vst1q_u32(p + 4 * i, v.q[i]);
  }
  static U32 words_of_u8(const uint8_t* p) {
    const uint8x16_t b = vld1q_u8(p);
    const uint16x8_t lo = vmovl_u8(vget_low_u8(b)), hi = vmovl_u8(vget_high_u8(b));
    return {{vmovl_u16(vget_low_u16(lo)), vmovl_u16(vget_high_u16(lo)), vmovl_u16(vget_low_u16(hi)),
             vmovl_u16(vget_high_u16(hi))}};
  }
  static void store_words_u8(uint8_t* p, U32 v) {
    const uint16x8_t lo = vcombine_u16(vmovn_u32(v.q[0]), vmovn_u32(v.q[1]));
    const uint16x8_t hi = vcombine_u16(vmovn_u32(v.q[2]), vmovn_u32(v.q[3]));
    vst1q_u8(p, vcombine_u8(vmovn_u16(lo), vmovn_u16(hi)));
  }
  template <int Shift>
  static U8 shift_left(U8 v) {
    return vshlq_n_u8(v, Shift);
  }
  template <int Shift, uint32_t Mask>
  static U8 shift_mask(U8 v) {
    if constexpr (Shift > 0) v = vshrq_n_u8(v, Shift);
    return vandq_u8(v, vdupq_n_u8(Mask));
  }
  static U8 merge(U8 a, U8 b) { return vorrq_u8(a, b); }
  template <int Shift>
  static U32 shift_left(U32 v) {
    return each_u32([&](int i) { return vshlq_n_u32(v.q[i], Shift); });
  }
  template <int Shift, uint32_t Mask>
  static U32 shift_mask(U32 v) {
    return each_u32([&](int i) {
      if constexpr (Shift > 0) return vandq_u32(vshrq_n_u32(v.q[i], Shift), vdupq_n_u32(Mask));
      return vandq_u32(v.q[i], vdupq_n_u32(Mask));
    });
  }
  static U32 merge(U32 a, U32 b) {
    return each_u32([&](int i) { return vorrq_u32(a.q[i], b.q[i]); });
  }
  static F32 fma(F32 a, F32 b, F32 c) {
    return each([&](int i) { return vfmaq_f32(c.q[i], a.q[i], b.q[i]); });
  }
  static F32 to_f32(U32 w) {
    return each([&](int i) { return vcvtq_f32_s32(vreinterpretq_s32_u32(w.q[i])); });
  }

  template <int Bits>
  using Dot = NeonDot<NeonOf, DotProd, Bits>;
  template <int Bits>
  using RowsDot = std::conditional_t<I8mm, NeonMatrixDot<NeonOf>, Dot<Bits>>;

  static void transpose16(const uint8_t* from, size_t from_stride, uint8_t* to, size_t to_stride) {
    uint8x16_t a[16], b[16];
    for (size_t i = 0; i < 16; ++i) a[i] = vld1q_u8(from + i * from_stride);
    // Four rounds of interleaving rows i and i + 8 reverse the roles of row and column bits one by one.
    const auto interleave = [](const uint8x16_t* in, uint8x16_t* out) {
      for (size_t i = 0; i < 8; ++i) {
        out[2 * i] = vzip1q_u8(in[i], in[i + 8]);
        out[2 * i + 1] = vzip2q_u8(in[i], in[i + 8]);
      }
    };
    interleave(a, b), interleave(b, a), interleave(a, b), interleave(b, a);
    for (size_t i = 0; i < 16; ++i) vst1q_u8(to + i * to_stride, a[i]);
  }
  static void transpose16(const uint32_t* from, size_t from_stride, uint32_t* to, size_t to_stride) {
    for (size_t r = 0; r < 16; r += 4)
      for (size_t c = 0; c < 16; c += 4)
        transpose4(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride);
  }

 private:
  static void transpose4(const uint32_t* from, size_t from_stride, uint32_t* to, size_t to_stride) {
    const uint32x4_t r0 = vld1q_u32(from), r1 = vld1q_u32(from + from_stride);
    const uint32x4_t r2 = vld1q_u32(from + 2 * from_stride), r3 = vld1q_u32(from + 3 * from_stride);
    const uint32x4_t a = vzip1q_u32(r0, r2), b = vzip2q_u32(r0, r2), c = vzip1q_u32(r1, r3), d = vzip2q_u32(r1, r3);
    vst1q_u32(to, vzip1q_u32(a, c)), vst1q_u32(to + to_stride, vzip2q_u32(a, c));
    vst1q_u32(to + 2 * to_stride, vzip1q_u32(b, d)), vst1q_u32(to + 3 * to_stride, vzip2q_u32(b, d));
  }
};

using Neon = NeonOf<false, false>;
using NeonDotProd = NeonOf<true, false>;
using NeonI8mm = NeonOf<true, true>;

static_assert(Simd<Neon>);

}  // namespace hqq::simd
