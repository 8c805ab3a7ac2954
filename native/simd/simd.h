#pragma once
#include <cstddef>
#include <cstdint>

// For the innermost functions of kernels: a call in a hot loop costs more than the loop's work.
#if defined(_MSC_VER) && !defined(__clang__)
#define HQQ_INLINE __forceinline
#else
#define HQQ_INLINE inline __attribute__((always_inline))
#endif

// For what must not crowd the loop that it is called from.
#if defined(_MSC_VER) && !defined(__clang__)
#define HQQ_NOINLINE __declspec(noinline)
#else
#define HQQ_NOINLINE __attribute__((noinline))
#endif

// HQQ_INLINE for lambdas, after their parameters. isa/scalar.cc does without.
#if defined(HQQ_INLINE_LAMBDA)
#elif defined(_MSC_VER) && !defined(__clang__)
#define HQQ_INLINE_LAMBDA
#else
#define HQQ_INLINE_LAMBDA __attribute__((always_inline))
#endif

// Before a loop of known length that must stay one.
#if defined(__clang__)
#define HQQ_NO_UNROLL _Pragma("clang loop unroll(disable)")
#elif defined(__GNUC__)
#define HQQ_NO_UNROLL _Pragma("GCC unroll 1")
#else
#define HQQ_NO_UNROLL
#endif

// What a vector wrapper V gives. F32 and U32 have sixteen lanes: one zmm, two ymm, four q registers, or an array of 16.
// U8 has kBytes lanes, whatever one register of the machine holds: integer operations give the same bits at any width.
//
// Float operations are IEEE single precision, rounded to nearest even, never fused, so that all wrappers return the
// same bits. Where an operand is NaN, min and max return their second operand.
namespace hqq::simd {

// Nothing here stands for an instruction that is not there. Types of extensions (Avx2Vnni, NeonI8mm, ...) are refused
// in files that are not compiled for them, and prefetch, a hint for which any address will do, is left to those that
// have it.
template <class V>
concept Prefetching = requires(const void* p) { V::prefetch(p); };
template <class V>
HQQ_INLINE void prefetch([[maybe_unused]] const void* p) {
  if constexpr (Prefetching<V>) V::prefetch(p);
}

template <class V>
concept Simd = requires(typename V::F32 a, typename V::U32 w, typename V::U8 b, float x, const float* in, float* out,
                        const uint8_t* bytes_in, uint8_t* bytes_out, const uint16_t* half_in, uint16_t* half_out,
                        size_t n, const uint32_t* words_in, uint32_t* words_out, const double* doubles_in) {
  { V::kName };
  { V::kDot };  // what multiplies integers
  { V::kBytes };
  { V::kTileRows };    // rows of x whose sums, sixteen floats each, fit the registers in a matrix product
  { V::kTileRows8 };   // the same for products of bytes
  { V::kFewRows };     // rows of bytes that codes are multiplied with as they come from memory; 1: only a row alone is
  { V::kTilePanels };  // panels that share these: x is loaded once for all of them, and each has fewer rows
  { V::kRowPanels };   // panels of sixteen outputs whose sums and zeros fit them in a product of one row of floats
  // sixteen floats
  { V::load(in) };
  { V::store(out, a) };
  { V::set(x) };
  { V::load_u8(bytes_in) };       // bytes as floats
  { V::store_u8(bytes_out, a) };  // whole numbers in [0, 255]
  { V::load_f16(half_in) };
  { V::load_bf16(half_in) };
  { V::store_f16(half_out, a) };  // rounds half to even
  { V::store_bf16(half_out, a) };
  { V::add(a, a) };
  { V::sub(a, a) };
  { V::mul(a, a) };
  { V::div(a, a) };
  { V::min(a, a) };
  { V::max(a, a) };
  { V::round(a) };  // half to even
  { V::abs(a) };
  { V::differ(a, a) };    // a bit a lane, set where they are not equal
  { V::copysign(a, a) };  // magnitude of the first, sign of the second
  { V::first(a, n) };     // lanes from n on become +0
  // x = mantissa(x) * 2^exponent(x), mantissa in [1, 2), for positive normal x; pow2 takes whole numbers in [-126, 127]
  { V::mantissa(a) };
  { V::exponent(a) };
  { V::pow2(a) };
  // across lanes; sum adds lanes i and i + 8, then i + 4, i + 2, i + 1
  { V::sum(a) };
  { V::min_across(a) };
  { V::max_across(a) };
  // the same of four vectors at a time, to four floats or words
  { V::sum_four(a, a, a, a, out) };
  { V::min_four(a, a, a, a, out) };
  { V::max_four(a, a, a, a, out) };
  // kBytes bytes
  { V::load_bytes(bytes_in) };
  { V::store_bytes(bytes_out, b) };
  { V::template shift_left<4>(b) };      // of bytes that lose no bit by it
  { V::template shift_mask<4, 15>(b) };  // b >> Shift & Mask
  { V::merge(b, b) };                    // bitwise or
  // sixteen 32-bit words
  { V::load_words(words_in) };
  { V::store_words(words_out, w) };
  { V::words_of_u8(bytes_in) };         // bytes as words
  { V::store_words_u8(bytes_out, w) };  // words in [0, 255] as bytes
  { V::template shift_left<3>(w) };
  { V::template shift_mask<3, 7>(w) };
  { V::merge(w, w) };
  { V::add(w, w) };
  { V::rounded_words(a) };  // half to even, as two's complement; for |a| < 2^31
  { V::sum_words(w) };      // of all lanes, as a double
  // (sum - less[i]) * factor of four vectors, to four floats; sums are taken for two's complement
  { V::means_four(w, w, w, w, doubles_in, x, out) };
  { V::to_f32(w) };  // words in [0, 2^31) as floats
  // a * b + c, in one rounding or in two: for matrix products, whose bits differ between instruction sets
  { V::fma(a, a, a) };
  // Sixteen integer dot products: lane j of Codes holds four codes of output j, and x four signed bytes in [-127, 127]
  // that all lanes share. At most kRun of them may be added to a Run, which begins with a Sum and is folded into it
  // (both may be the same); total gives floats. Codes of different sizes that are multiplied alike have the same Dot,
  // and so one kernel.
  typename V::template Dot<4>::Sum;
  { V::template Dot<4>::kRun };
  // What multiplies many rows: Dot, or one that takes two quads of two rows at a time and says how their codes lie,
  // lay_out.
  typename V::template RowsDot<4>::Sum;
  // to[c * to_stride + r] = from[r * from_stride + c], sixteen by sixteen
  { V::transpose16(bytes_in, n, bytes_out, n) };
  { V::transpose16(words_in, n, words_out, n) };
};

}  // namespace hqq::simd
