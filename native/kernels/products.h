#pragma once
#include "panel.h"

namespace hqq::kernels {

// Products of codes and of x as bytes (linear.h): all that an extension of an instruction set has of its own. Integers are
// exact, and the floats that they become are added in one order: the same bits on every backend.

// The blocks of a group one after the other, every operation rounded:
//
//   levels = sum over blocks of dot * x_scale          x_total = sum over blocks of x_sum * x_scale
//   sum   += (levels - zero * x_total) * scale
template <class V>
HQQ_INLINE typename V::F32 add_block(typename V::F32 levels, typename V::F32 dot, float x_scale) {
  return V::add(levels, V::mul(dot, V::set(x_scale)));
}
template <class V>
HQQ_INLINE typename V::F32 add_group(typename V::F32 sum, typename V::F32 levels, typename V::F32 scale,
                                     typename V::F32 zero, float x_total) {
  return V::add(sum, V::mul(V::sub(levels, V::mul(zero, V::set(x_total))), scale));
}

// Calls body(quads) for runs that a Run of `Dot` holds. A whole block has a length that the compiler knows: without a counter,
// registers suffice.
template <class Dot, class Body>
HQQ_INLINE void for_runs(size_t quads, Body body) {
  constexpr size_t kRun = Dot::kRun < kInputQuads ? Dot::kRun : kInputQuads;
  for (; quads >= kRun; quads -= kRun) body(kRun);
  if (quads > 0) body(quads);
}

// ---- one row

template <class V, int Bits, size_t Panels>
void row_i8_of(const PanelRows& p, const Input& in, float* out) {
  using Dot = typename V::template Dot<Bits>;
  using Unit = PanelBits<Bits>;
  typename V::F32 sum_f32[Panels];
  for (auto& sum : sum_f32) sum = V::set(0.0f);
  const uint8_t* codes = p.codes;
  const auto* x = static_cast<const int8_t*>(in.values);
  const float *x_scale = in.scale, *x_sum = in.sum;
  for (size_t g = 0; g < p.groups; ++g) {
    typename V::F32 levels_f32[Panels];
    for (auto& levels : levels_f32) levels = V::set(0.0f);
    for (size_t q = 0; q < p.quads; q += kInputQuads, ++x_scale, ++x_sum) {
      typename Dot::Sum dot[Panels];
      for (auto& sum : dot) sum = Dot::zero();
      for_runs<Dot>(p.quads - q < kInputQuads ? p.quads - q : kInputQuads, [&](size_t quads) HQQ_INLINE_LAMBDA {
        typename Dot::Run run[Panels];
        for (size_t n = 0; n < Panels; ++n) run[n] = Dot::start(dot[n]);
        for (size_t i = 0; i < quads; i += Unit::kQuads, codes += Unit::kBytes, x += 4 * Unit::kQuads)
          for (size_t n = 0; n < Panels; ++n) {
            const uint8_t* unit = codes + n * p.codes_stride;
            prefetch_unit<V, Bits>(unit);
            for_unit<V, Bits>(unit, [&](size_t quad, typename V::U32 c) HQQ_INLINE_LAMBDA {
              run[n] = Dot::add(run[n], Dot::codes(c), x + 4 * quad);
            });
          }
        for (size_t n = 0; n < Panels; ++n) dot[n] = Dot::fold(dot[n], run[n]);
      });
      for (size_t n = 0; n < Panels; ++n)
        levels_f32[n] = add_block<V>(levels_f32[n], Dot::total(dot[n], static_cast<int>(*x_sum)), *x_scale);
    }
    for (size_t n = 0; n < Panels; ++n) {
      const float* meta = p.meta + n * p.meta_stride + g * 2 * kPanel;
      sum_f32[n] = add_group<V>(sum_f32[n], levels_f32[n], V::load(meta), V::load(meta + kPanel), in.total[g]);
    }
  }
  for (size_t n = 0; n < Panels; ++n) V::store(out + n * kPanel, sum_f32[n]);
}

template <class V, int Bits>
void row_i8(PanelRows p, const Input& in, size_t panels, float* out) {
  // Two: x is loaded once for both, and there are enough sums in flight.
  by_panels<2>(p, panels, out, [&in]<size_t Panels>(const PanelRows& some, float* to) {
    row_i8_of<V, Bits, Panels>(some, in, to);
  });
}

// ---- many rows, one group of one panel: sums[row][16] += ...

// Takes two quads of two rows at a time, from codes that it lays out.
template <class Dot>
inline constexpr bool kTakesPairs = requires { &Dot::lay_out; };

// dot_f32[rows] = the products of one block
template <class V, class Dot, size_t Rows>
HQQ_INLINE void dots_of_rows(const uint8_t* bytes, const int8_t* x, const float* x_sum, size_t stride, size_t quads,
                             typename V::F32* dot_f32) {
  typename Dot::Sum dot[Rows];
  for (auto& sum : dot) sum = Dot::zero();
  for_runs<Dot>(quads, [&](size_t some) HQQ_INLINE_LAMBDA {
    typename Dot::Run run[Rows];
    for (size_t i = 0; i < Rows; ++i) run[i] = Dot::start(dot[i]);
    HQQ_NO_UNROLL for (size_t q = 0; q < some; ++q, bytes += kQuadBytes, x += stride) {
      const auto codes = Dot::codes(load_quad<V>(bytes));
      for (size_t i = 0; i < Rows; ++i) run[i] = Dot::add(run[i], codes, x + 4 * i);
    }
    for (size_t i = 0; i < Rows; ++i) dot[i] = Dot::fold(dot[i], run[i]);
  });
  for (size_t i = 0; i < Rows; ++i) dot_f32[i] = Dot::total(dot[i], static_cast<int>(x_sum[i]));
}

template <class V, class Dot, size_t Rows>
HQQ_INLINE void pair_dots_of_rows(const uint8_t* bytes, const int8_t* x, size_t stride, size_t quads,
                                  typename V::F32* dot_f32) {
  typename Dot::Sum dot[(Rows + 1) / 2];
  for (auto& sum : dot) sum = Dot::zero();
  for (size_t q = 0; q < quads; q += 2, bytes += 2 * kQuadBytes, x += 2 * stride) {
    const int8_t* next = q + 1 < quads ? x + stride : x;  // anything: the codes that it meets are zeros
    const auto codes = Dot::codes(bytes);
    for (size_t i = 0; i < Rows; i += 2)
      dot[i / 2] = Dot::add(dot[i / 2], codes, Dot::template x<(Rows > 1)>(x + 4 * i, next + 4 * i));
  }
  for (size_t i = 0; i < Rows; i += 2) {
    dot_f32[i] = Dot::template total<0>(dot[i / 2]);
    if constexpr (Rows > 1) dot_f32[i + 1] = Dot::template total<1>(dot[i / 2]);
  }
}

template <class V, class Dot, size_t Rows>
HQQ_INLINE void rows_i8_of(const uint8_t* bytes, const GroupRows& g, size_t r, float* sums) {
  const size_t stride = 4 * g.rows;
  const auto* x = static_cast<const int8_t*>(g.in.values) + 4 * r;
  const float *x_scale = g.in.scale + r, *x_sum = g.in.sum + r, *x_total = g.in.total + r;
  typename V::F32 levels_f32[Rows];
  for (auto& levels : levels_f32) levels = V::set(0.0f);
  for (size_t q = 0; q < g.quads; q += kInputQuads, x_scale += g.rows, x_sum += g.rows) {
    const size_t quads = g.quads - q < kInputQuads ? g.quads - q : kInputQuads;
    typename V::F32 dot_f32[Rows];
    if constexpr (kTakesPairs<Dot>) pair_dots_of_rows<V, Dot, Rows>(bytes + q * kQuadBytes, x + q * stride, stride, quads, dot_f32);
    else dots_of_rows<V, Dot, Rows>(bytes + q * kQuadBytes, x + q * stride, x_sum, stride, quads, dot_f32);
    for (size_t i = 0; i < Rows; ++i) levels_f32[i] = add_block<V>(levels_f32[i], dot_f32[i], x_scale[i]);
  }
  const auto scale_f32 = V::load(g.meta), zero_f32 = V::load(g.meta + kPanel);
  sums += r * kPanel;
  for (size_t i = 0; i < Rows; ++i, sums += kPanel)
    V::store(sums, add_group<V>(V::load(sums), levels_f32[i], scale_f32, zero_f32, x_total[i]));
}

template <class V, class Dot>
HQQ_NOINLINE void group_i8(uint8_t* bytes, const GroupRows& g, float* sums) {
  constexpr size_t kMost = V::kTileRows8;
  if constexpr (kTakesPairs<Dot>)
    for (size_t q = 0; q < g.quads; q += 2) Dot::lay_out(bytes + q * kQuadBytes, q + 1 < g.quads);
  size_t r = 0;
  for (; r + kMost <= g.rows; r += kMost) rows_i8_of<V, Dot, kMost>(bytes, g, r, sums);
  for (; r + 2 <= g.rows; r += 2) rows_i8_of<V, Dot, 2>(bytes, g, r, sums);
  if (r < g.rows) rows_i8_of<V, Dot, 1>(bytes, g, r, sums);
}

template <class V, int Bits>
void rows_i8(const PanelRows& p, const Input& in, size_t rows, uint8_t* bytes, float* sums) {
  for_groups<Bits>(p, in, rows, sizeof(int8_t), sums, [&](const uint8_t* codes, const GroupRows& g) HQQ_INLINE_LAMBDA {
    unpack_panel<V, Bits>(codes, p.quads, bytes);
    group_i8<V, typename V::template RowsDot<Bits>>(bytes, g, sums);
  });
}

template <class V>
constexpr ByteProducts make_bytes() {
  return {
      .dot = V::kDot,
      .row = {&row_i8<V, 8>, &row_i8<V, 4>, &row_i8<V, 3>, &row_i8<V, 2>, &row_i8<V, 1>},
      .rows = {&rows_i8<V, 8>, &rows_i8<V, 4>, &rows_i8<V, 3>, &rows_i8<V, 2>, &rows_i8<V, 1>},
  };
}

}  // namespace hqq::kernels
