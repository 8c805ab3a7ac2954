#pragma once
#include "panel.h"

namespace hqq::kernels {

// Products of codes and of x as bytes (linear.h): all that an extension of an instruction set has of its own. Integers
// are exact, and the floats that they become are added in one order: the same bits on every backend.

// The segments of a group one after the other, every operation rounded:
//
//   levels = sum over segments of dot * x_scale          x_total = sum over segments of x_sum * x_scale
//   sum   += (levels - zero * x_total) * scale
template <class V>
HQQ_INLINE typename V::F32 add_segment(typename V::F32 levels, typename V::F32 dot, float x_scale) {
  return V::add(levels, V::mul(dot, V::set(x_scale)));
}
template <class V>
HQQ_INLINE typename V::F32 add_group(typename V::F32 sum, typename V::F32 levels, typename V::F32 scale,
                                     typename V::F32 zero, float x_total) {
  return V::add(sum, V::mul(V::sub(levels, V::mul(zero, V::set(x_total))), scale));
}

// Quads that are added to a Run of `Dot`: whole units of every format, and a segment at most.
template <class Dot>
constexpr size_t run_of() {
  return Dot::kRun < kInputQuads ? Dot::kRun : kInputQuads;
}

// Calls body(quads) for runs that a Run of `Dot` holds. A whole segment has a length that the compiler knows: without a
// counter, registers suffice.
template <class Dot, class Body>
HQQ_INLINE void for_runs(size_t quads, Body body) {
  constexpr size_t kRun = run_of<Dot>();
  for (; quads >= kRun; quads -= kRun) body(kRun);
  if (quads > 0) body(quads);
}

// ---- a few rows, as codes come from memory

// sums[Rows][kPanel] of one panel: rows [r, r + Rows) of `rows`. Where not IsShort, its form is the plain one.
template <class V, class F, size_t Rows, bool IsShort = true>
HQQ_INLINE void few_rows_of(const PanelRows& p, const Input& in, size_t r, size_t rows, float* sums) {
  using Dot = typename V::template Dot<F::kBits>;
  static_assert(run_of<Dot>() % F::kUnitQuads == 0 && kInputQuads % F::kUnitQuads == 0);
  typename V::F32 sum_f32[Rows];
  for (auto& sum : sum_f32) sum = V::set(0.0f);
  const uint8_t* codes = p.codes;
  const size_t stride = 4 * rows;
  const auto* x = static_cast<const int8_t*>(in.values) + 4 * r;
  const float *x_scale = in.scale + r, *x_sum = in.sum + r, *x_total = in.total + r;
  for (size_t g = 0; g < p.groups; ++g, x_total += rows) {
    typename V::F32 levels_f32[Rows];
    for (auto& levels : levels_f32) levels = V::set(0.0f);
    const size_t ahead = ahead_of<1>(p, codes);
    for (size_t q = 0; q < p.quads; q += kInputQuads, x_scale += rows, x_sum += rows) {
      typename Dot::Sum dot[Rows];
      for (auto& sum : dot) sum = Dot::zero();
      for_runs<Dot>(p.quads - q < kInputQuads ? p.quads - q : kInputQuads, [&](size_t quads) HQQ_INLINE_LAMBDA {
        typename Dot::Run run[Rows];
        for (size_t i = 0; i < Rows; ++i) run[i] = Dot::start(dot[i]);
        for (size_t at = 0; at < quads; at += F::kUnitQuads, codes += F::kUnitBytes) {
          prefetch_unit<V, F>(codes, ahead);
          for_unit<V, F>(codes, [&](size_t, typename V::U32 c) HQQ_INLINE_LAMBDA {
            const typename Dot::Codes quad = Dot::codes(c);
            for (size_t i = 0; i < Rows; ++i) run[i] = Dot::add(run[i], quad, x + 4 * i);
            x += stride;
          });
        }
        for (size_t i = 0; i < Rows; ++i) dot[i] = Dot::fold(dot[i], run[i]);
      });
      for (size_t i = 0; i < Rows; ++i)
        levels_f32[i] = add_segment<V>(levels_f32[i], Dot::total(dot[i], static_cast<int>(x_sum[i])), x_scale[i]);
    }
    const MetaForm form = IsShort ? p.form : MetaForm{};
    const std::byte* meta = p.meta + g * form.bytes();
    prefetch_meta<V, 1>(p, meta);
    const auto scale_f32 = scales_of<V>(form, meta), zero_f32 = zeros_of<V>(form, meta);
    for (size_t i = 0; i < Rows; ++i)
      sum_f32[i] = add_group<V>(sum_f32[i], levels_f32[i], scale_f32, zero_f32, x_total[i]);
  }
  for (size_t i = 0; i < Rows; ++i) V::store(sums + i * kPanel, sum_f32[i]);
}

template <class V, class F>
void row_i8(PanelRows p, const Input& in, size_t panels, float* out) {
  const auto multiply = [&]<bool IsShort>() HQQ_INLINE_LAMBDA {
    by_panels<1>(p, panels, out, [&in]<size_t>(const PanelRows& one, float* to) HQQ_INLINE_LAMBDA {
      few_rows_of<V, F, 1, IsShort>(one, in, 0, 1, to);
    });
  };
  // Of a row alone, asking for the form costs up to 4 % of the time.
  if (p.form.is_plain())
    multiply.template operator()<false>();
  else
    multiply.template operator()<true>();
}

// Laying codes out for all rows pays when they are more than so many times a few.
inline constexpr size_t kFewTimes = 4;

// Rows [r, rows), `Most` at a time, then half as many: a panel that has been read is in the first-level cache.
template <class V, class F, size_t Most>
HQQ_INLINE void few_rows(const PanelRows& p, const Input& in, size_t r, size_t rows, float* sums) {
  for (; r + Most <= rows; r += Most) few_rows_of<V, F, Most>(p, in, r, rows, sums + r * kPanel);
  if constexpr (Most > 1) few_rows<V, F, Most / 2>(p, in, r, rows, sums);
}

// ---- many rows, one group of one panel: sums[row][16] += ...

// Takes two quads of two rows at a time, from codes that it lays out.
template <class Dot>
inline constexpr bool kTakesPairs = requires { &Dot::lay_out; };

// dot_f32[rows][panels] = the products of one segment; `bytes` has panels `bytes_stride` apart
template <class V, class Dot, size_t Rows, size_t Panels>
HQQ_INLINE void dots_of_rows(const uint8_t* bytes, size_t bytes_stride, const int8_t* x, const float* x_sum,
                             size_t stride, size_t quads, typename V::F32 (*dot_f32)[Panels]) {
  typename Dot::Sum dot[Rows][Panels];
  for (auto& row : dot)
    for (auto& sum : row) sum = Dot::zero();
  for_runs<Dot>(quads, [&](size_t some) HQQ_INLINE_LAMBDA {
    typename Dot::Run run[Rows][Panels];
    for (size_t i = 0; i < Rows; ++i)
      for (size_t n = 0; n < Panels; ++n) run[i][n] = Dot::start(dot[i][n]);
    HQQ_NO_UNROLL for (size_t q = 0; q < some; ++q, bytes += kQuadBytes, x += stride) {
      typename Dot::Codes codes[Panels];
      for (size_t n = 0; n < Panels; ++n) codes[n] = Dot::codes(load_quad<V>(bytes + n * bytes_stride));
      for (size_t i = 0; i < Rows; ++i)
        for (size_t n = 0; n < Panels; ++n) run[i][n] = Dot::add(run[i][n], codes[n], x + 4 * i);
    }
    for (size_t i = 0; i < Rows; ++i)
      for (size_t n = 0; n < Panels; ++n) dot[i][n] = Dot::fold(dot[i][n], run[i][n]);
  });
  for (size_t i = 0; i < Rows; ++i)
    for (size_t n = 0; n < Panels; ++n) dot_f32[i][n] = Dot::total(dot[i][n], static_cast<int>(x_sum[i]));
}

template <class V, class Dot, size_t Rows>
HQQ_INLINE void pair_dots_of_rows(const uint8_t* bytes, const int8_t* x, size_t stride, size_t quads,
                                  typename V::F32 (*dot_f32)[1]) {
  typename Dot::Sum dot[(Rows + 1) / 2];
  for (auto& sum : dot) sum = Dot::zero();
  for (size_t q = 0; q < quads; q += 2, bytes += 2 * kQuadBytes, x += 2 * stride) {
    const int8_t* next = q + 1 < quads ? x + stride : x;  // anything: the codes that it meets are zeros
    const auto codes = Dot::codes(bytes);
    for (size_t i = 0; i < Rows; i += 2)
      dot[i / 2] = Dot::add(dot[i / 2], codes, Dot::template x<(Rows > 1)>(x + 4 * i, next + 4 * i));
  }
  for (size_t i = 0; i < Rows; i += 2) {
    dot_f32[i][0] = Dot::template total<0>(dot[i / 2]);
    if constexpr (Rows > 1) dot_f32[i + 1][0] = Dot::template total<1>(dot[i / 2]);
  }
}

// Bytes of the codes of a group, an even number of quads.
inline constexpr size_t bytes_of_group(size_t quads) { return (quads + 1) / 2 * 2 * kQuadBytes; }

template <class V, class Dot, size_t Rows, size_t Panels>
HQQ_INLINE void rows_i8_of(const uint8_t* bytes, const GroupRows& g, size_t r, float* sums) {
  const size_t stride = 4 * g.rows;
  const auto* x = static_cast<const int8_t*>(g.in.values) + 4 * r;
  const float *x_scale = g.in.scale + r, *x_sum = g.in.sum + r, *x_total = g.in.total + r;
  typename V::F32 levels_f32[Rows][Panels];
  for (auto& row : levels_f32)
    for (auto& levels : row) levels = V::set(0.0f);
  for (size_t q = 0; q < g.quads;
       q += kInputQuads, bytes += kInputQuads * kQuadBytes, x_scale += g.rows, x_sum += g.rows) {
    const size_t quads = g.quads - q < kInputQuads ? g.quads - q : kInputQuads;
    typename V::F32 dot_f32[Rows][Panels];
    if constexpr (kTakesPairs<Dot>)
      pair_dots_of_rows<V, Dot, Rows>(bytes, x + q * stride, stride, quads, dot_f32);
    else
      dots_of_rows<V, Dot, Rows, Panels>(bytes, bytes_of_group(g.quads), x + q * stride, x_sum, stride, quads, dot_f32);
    for (size_t i = 0; i < Rows; ++i)
      for (size_t n = 0; n < Panels; ++n)
        levels_f32[i][n] = add_segment<V>(levels_f32[i][n], dot_f32[i][n], x_scale[i]);
  }
  for (size_t n = 0; n < Panels; ++n) {
    const float* meta = g.meta + n * g.meta_stride;
    const auto scale_f32 = V::load(meta), zero_f32 = V::load(meta + kPanel);
    float* sum = sums + (n * g.rows + r) * kPanel;
    for (size_t i = 0; i < Rows; ++i, sum += kPanel)
      V::store(sum, add_group<V>(V::load(sum), levels_f32[i][n], scale_f32, zero_f32, x_total[i]));
  }
}

template <class V, class Dot, size_t Panels>
HQQ_NOINLINE void group_i8(const uint8_t* bytes, const GroupRows& g, float* sums) {
  constexpr size_t kMost = V::kTileRows8 / Panels;
  static_assert(!kTakesPairs<Dot> || Panels == 1);
  size_t r = 0;
  for (; r + kMost <= g.rows; r += kMost) rows_i8_of<V, Dot, kMost, Panels>(bytes, g, r, sums);
  for (; r + 2 <= g.rows; r += 2) rows_i8_of<V, Dot, 2, Panels>(bytes, g, r, sums);
  if (r < g.rows) rows_i8_of<V, Dot, 1, Panels>(bytes, g, r, sums);
}

template <class V, class F>
void rows_i8(const PanelRows& p, const InputRows& in, size_t panels, uint8_t* bytes, float* sums) {
  using Dot = typename V::template RowsDot<F::kBits>;
  if (V::kFewRows > 1 && in.bands == 1 && in.rows <= kFewTimes * V::kFewRows) {
    PanelRows one = p;
    for (size_t n = 0; n < panels; ++n, one.codes += p.codes_stride, one.meta += p.meta_stride)
      few_rows<V, F, V::kFewRows>(one, in.first, 0, in.rows, sums + n * in.rows * kPanel);
    return;
  }
  with_panels<V>(panels, [&]<size_t Panels>() HQQ_INLINE_LAMBDA {
    const auto unpack = [&](const uint8_t* codes, const float*) HQQ_INLINE_LAMBDA {
      for (size_t n = 0; n < Panels; ++n) {
        uint8_t* const to = bytes + n * bytes_of_group(p.quads);
        unpack_panel<V, F>(codes + n * p.codes_stride, p.quads, to);
        if constexpr (kTakesPairs<Dot>)
          for (size_t q = 0; q < p.quads; q += 2) Dot::lay_out(to + q * kQuadBytes, q + 1 < p.quads);
      }
    };
    const auto multiply = [&](const GroupRows& g, float* of_band)
                              HQQ_INLINE_LAMBDA { group_i8<V, Dot, Panels>(bytes, g, of_band); };
    for_groups<V, F, Panels>(p, in, sizeof(int8_t), sums, unpack, multiply);
  });
}

template <class V, class... F>
constexpr ByteProducts make_bytes_for(FormatList<F...>) {
  return {.dot = V::kDot, .row = {&row_i8<V, F>...}, .rows = {&rows_i8<V, F>...}};
}

template <class V>
constexpr ByteProducts make_bytes() {
  return make_bytes_for<V>(Formats{});
}

}  // namespace hqq::kernels
