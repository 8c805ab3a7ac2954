#pragma once
#include <array>
#include <utility>

#include "convert.h"
#include "panel.h"
#include "products.h"

namespace hqq::kernels {

// y[row][output] = sum over groups of scale * dot(codes - zero, x)            floats
//                                      scale * (dot(codes, x) - zero * sum(x))   bytes: products.h
//
// Outputs are the lanes, so no sum goes across them, and a row's additions come in the same order however many rows or
// threads there are. One row: codes go from memory through registers into products. Many: a group's codes are unpacked
// into the first-level cache once (unpack_panel, tile_f32) for all rows.

// ---- x

// q = round(x / scale) in [-127, 127], scale = max |x| / 127, sum = sum of q: one segment of one row.
template <class V>
HQQ_INLINE void input_segment(const float* x, size_t size, int8_t* q, float* scale, float* sum) {
  auto most_f32 = V::set(0.0f), poison_f32 = V::set(0.0f);
  const auto measure = [&](typename V::F32 x_f32) {
    most_f32 = V::max(most_f32, V::abs(x_f32));
    poison_f32 = V::add(poison_f32, V::mul(x_f32, V::set(0.0f)));  // NaN where x is not finite
  };
  float tail[kLanes] = {};
  for_vectors<V>(
      size, [&](size_t i) { measure(V::load(x + i)); },
      [&](size_t i, size_t rest) {
        copy_lanes<V>(x + i, rest, tail);
        measure(V::load(tail));
      });
  const float most = V::max_across(most_f32), poison = V::sum(poison_f32);
  if (poison != 0.0f) most_f32 = V::set(0.0f);  // all outputs become NaN
  // A segment of less than this is one of zeros: its reciprocal would not be finite.
  const float levels = poison == 0.0f && most > 0x1p-100f ? 127.0f / most : 0.0f;
  const auto levels_f32 = V::set(levels), offset_f32 = V::set(128.0f);
  auto sum_f32 = V::set(0.0f);
  const auto store = [&](size_t i, size_t count, typename V::F32 x_f32) {
    const auto q_f32 = levels == 0.0f ? V::set(0.0f) : V::round(V::mul(x_f32, levels_f32));
    sum_f32 = V::add(sum_f32, q_f32);
    uint8_t biased[kLanes];
    V::store_u8(biased, V::add(q_f32, offset_f32));
    for (size_t lane = 0; lane < kLanes; ++lane) biased[lane] ^= 0x80;
    copy_lanes<V>(biased, count, reinterpret_cast<uint8_t*>(q) + i);
  };
  for_vectors<V>(
      size, [&](size_t i) { store(i, kLanes, V::load(x + i)); },
      [&](size_t i, size_t rest) { store(i, rest, V::load(tail)); });
  *scale = poison == 0.0f ? most / 127.0f * static_cast<float>(levels != 0.0f) : poison;
  *sum = V::sum(sum_f32);
}

// One group of one row, padded with zeros.
template <class V>
void input_i8(const float* x, size_t size, size_t padded_size, int8_t* q, float* scale, float* sum, size_t stride,
              float* total) {
  *total = 0.0f;
  for (size_t at = 0; at < size; at += kInputSegment, scale += stride, sum += stride) {
    input_segment<V>(x + at, size - at < kInputSegment ? size - at : kInputSegment, q + at, scale, sum);
    *total += *scale * *sum;
  }
  for (size_t i = size; i < padded_size; ++i) q[i] = 0;
}

// Codes meet x where they lie in a 32-bit lane: those of bytes 1 and 2 as multiples of 2^8 and 2^16, and x is divided
// by as much. (Exact down to 2^-110; a shift would cost as much as the product.)
constexpr float kByteUnit[4] = {1.0f, 0x1p-8f, 0x1p-16f, 1.0f};

template <class V, int Byte>
HQQ_INLINE typename V::F32 byte_f32(typename V::U32 quad) {
  if constexpr (Byte == 3) return V::to_f32(V::template shift_mask<24, 0xff>(quad));
  return V::to_f32(V::template shift_mask<0, 0xffu << (8 * Byte)>(quad));
}

// A group's zero, in the units of each byte. It is taken off each code, not off the sum of products: no term is lost in
// sums of codes that are many times as large.
template <class V>
struct Zero {
  typename V::F32 of_byte[4];

  explicit Zero(typename V::F32 zero) {
    for (size_t i = 0; i < 4; ++i) of_byte[i] = V::mul(zero, V::set(1.0f / kByteUnit[i]));
  }
};

template <class V, int Byte>
HQQ_INLINE typename V::F32 level_f32(typename V::U32 quad, const Zero<V>& zero) {
  return V::sub(byte_f32<V, Byte>(quad), zero.of_byte[Byte]);
}

template <class V>
void input_f32(const float* x, size_t size, size_t padded_size, float* to) {
  const auto unit_f32 = [] {
    float lanes[kLanes];
    for (size_t i = 0; i < kLanes; ++i) lanes[i] = kByteUnit[i % 4];
    return V::load(lanes);
  }();
  for_vectors<V>(
      size, [&](size_t i) { V::store(to + i, V::mul(V::load(x + i), unit_f32)); },
      [&](size_t i, size_t rest) {
        float tail[kLanes] = {};
        copy_lanes<V>(x + i, rest, tail);
        V::store(tail, V::mul(V::load(tail), unit_f32));
        copy_lanes<V>(tail, rest, to + i);
      });
  for (size_t i = size; i < padded_size; ++i) to[i] = 0.0f;
}

// ---- one row

template <class V, class F, size_t Panels>
void row_f32_of(const PanelRows& p, const Input& in, float* out) {
  typename V::F32 sum_f32[Panels];
  for (auto& sum : sum_f32) sum = V::set(0.0f);
  const uint8_t* codes = p.codes;
  const auto* x = static_cast<const float*>(in.values);
  for (size_t g = 0; g < p.groups; ++g) {
    const auto zeros = [&]<size_t... N>(std::index_sequence<N...>) {
      return std::array<Zero<V>, Panels>{
          Zero<V>(zeros_of<V>(p.form, p.meta + N * p.meta_stride + g * p.form.bytes()))...};
    }(std::make_index_sequence<Panels>{});
    typename V::F32 dot_f32[Panels];
    for (auto& dot : dot_f32) dot = V::set(0.0f);
    const size_t ahead = ahead_of<Panels>(p, codes);
    for (size_t q = 0; q < p.quads; q += kChainQuads) {
      typename V::F32 even_f32[Panels], odd_f32[Panels];
      for (size_t n = 0; n < Panels; ++n) even_f32[n] = odd_f32[n] = V::set(0.0f);
      const size_t quads = p.quads - q < kChainQuads ? p.quads - q : kChainQuads;
      for (size_t i = 0; i < quads; i += F::kUnitQuads, codes += F::kUnitBytes, x += 4 * F::kUnitQuads)
        for (size_t n = 0; n < Panels; ++n) {
          const uint8_t* unit = codes + n * p.codes_stride;
          prefetch_unit<V, F>(unit, ahead);
          for_unit<V, F>(unit, [&](size_t quad, typename V::U32 c) HQQ_INLINE_LAMBDA {
            const float* four = x + 4 * quad;
            even_f32[n] = V::fma(level_f32<V, 0>(c, zeros[n]), V::set(four[0]), even_f32[n]);
            odd_f32[n] = V::fma(level_f32<V, 1>(c, zeros[n]), V::set(four[1]), odd_f32[n]);
            even_f32[n] = V::fma(level_f32<V, 2>(c, zeros[n]), V::set(four[2]), even_f32[n]);
            odd_f32[n] = V::fma(level_f32<V, 3>(c, zeros[n]), V::set(four[3]), odd_f32[n]);
          });
        }
      for (size_t n = 0; n < Panels; ++n) dot_f32[n] = V::add(dot_f32[n], V::add(even_f32[n], odd_f32[n]));
    }
    for (size_t n = 0; n < Panels; ++n) {
      const std::byte* meta = p.meta + n * p.meta_stride + g * p.form.bytes();
      prefetch_meta<V, Panels>(p, meta);
      sum_f32[n] = V::fma(dot_f32[n], scales_of<V>(p.form, meta), sum_f32[n]);
    }
  }
  for (size_t n = 0; n < Panels; ++n) V::store(out + n * kPanel, sum_f32[n]);
}

template <class V, class F>
void row_f32(PanelRows p, const Input& in, size_t panels, float* out) {
  by_panels<V::kRowPanels>(p, panels, out, [&in]<size_t Panels>(const PanelRows& some, float* to) {
    row_f32_of<V, F, Panels>(some, in, to);
  });
}

// ---- many rows, one group of one panel: sums[row][16] += ...

// tile[4 * quads][16]: the codes without their zeros, in the units that input_f32 divides by
template <class V, class F>
HQQ_INLINE void tile_f32(const uint8_t* codes, size_t quads, const float* zero, float* tile) {
  const Zero<V> taken(V::load(zero));
  for (size_t q = 0; q < quads; q += F::kUnitQuads, codes += F::kUnitBytes)
    for_unit<V, F>(codes, [&](size_t i, typename V::U32 quad) HQQ_INLINE_LAMBDA {
      float* to = tile + (q + i) * 4 * kPanel;
      V::store(to, level_f32<V, 0>(quad, taken));
      V::store(to + kPanel, level_f32<V, 1>(quad, taken));
      V::store(to + 2 * kPanel, level_f32<V, 2>(quad, taken));
      V::store(to + 3 * kPanel, level_f32<V, 3>(quad, taken));
    });
}

// Sums of the products of every second weight of some quads, from the first or the second. `tile` has panels
// `tile_stride` apart.
template <class V, size_t Rows, size_t Panels>
HQQ_INLINE void chain_f32(const float* tile, size_t tile_stride, const float* x, size_t stride, size_t quads,
                          typename V::F32 (*sum_f32)[Panels]) {
  for (size_t i = 0; i < Rows; ++i)
    for (size_t n = 0; n < Panels; ++n) sum_f32[i][n] = V::set(0.0f);
  for (size_t q = 0; q < quads; ++q, x += stride, tile += 4 * kPanel) {
    prefetch<V>(
        x,
        8 * Rows *
            sizeof(
                float));  // of rows that come two steps later: quads lie too far apart for processors to see it coming
    for (size_t k = 0; k < 4; k += 2) {
      typename V::F32 codes_f32[Panels];
      for (size_t n = 0; n < Panels; ++n) codes_f32[n] = V::load(tile + n * tile_stride + k * kPanel);
      for (size_t i = 0; i < Rows; ++i) {
        const auto x_f32 = V::set(x[4 * i + k]);
        for (size_t n = 0; n < Panels; ++n) sum_f32[i][n] = V::fma(codes_f32[n], x_f32, sum_f32[i][n]);
      }
    }
  }
}

// Sums of the products of two chains: one parity after the other, so that more rows fit the registers. The order of a
// row's additions is that of row_f32_of.
template <class V, size_t Rows, size_t Panels>
HQQ_INLINE void chains_f32(const float* tile, size_t tile_stride, const float* x, size_t stride, size_t quads,
                           typename V::F32 (*sum_f32)[Panels]) {
  float even[Rows][Panels][kLanes];
  chain_f32<V, Rows, Panels>(tile, tile_stride, x, stride, quads, sum_f32);
  for (size_t i = 0; i < Rows; ++i)
    for (size_t n = 0; n < Panels; ++n) V::store(even[i][n], sum_f32[i][n]);
  chain_f32<V, Rows, Panels>(tile + kPanel, tile_stride, x + 1, stride, quads, sum_f32);
  for (size_t i = 0; i < Rows; ++i)
    for (size_t n = 0; n < Panels; ++n) sum_f32[i][n] = V::add(V::load(even[i][n]), sum_f32[i][n]);
}

// dots[rows] += the chains after the first two: out of the way, since few groups are that long.
template <class V, size_t Rows, size_t Panels>
HQQ_NOINLINE void more_chains_f32(const float* tile, size_t tile_stride, const float* x, size_t stride, size_t quads,
                                  float (*dots)[Panels][kLanes]) {
  for (size_t q = kChainQuads; q < quads; q += kChainQuads) {
    typename V::F32 sum_f32[Rows][Panels];
    const size_t some = quads - q < kChainQuads ? quads - q : kChainQuads;
    chains_f32<V, Rows, Panels>(tile + 4 * q * kPanel, tile_stride, x + q * stride, stride, some, sum_f32);
    for (size_t i = 0; i < Rows; ++i)
      for (size_t n = 0; n < Panels; ++n) V::store(dots[i][n], V::add(V::load(dots[i][n]), sum_f32[i][n]));
  }
}

template <class V, size_t Rows, size_t Panels>
HQQ_INLINE void rows_f32_of(const float* tile, const GroupRows& g, size_t r, float* sums) {
  const size_t stride = 4 * g.rows, tile_stride = 4 * g.quads * kPanel,
               quads = g.quads < kChainQuads ? g.quads : kChainQuads;
  const float* x = static_cast<const float*>(g.in.values) + 4 * r;
  typename V::F32 sum_f32[Rows][Panels];
  chains_f32<V, Rows, Panels>(tile, tile_stride, x, stride, quads, sum_f32);
  if (g.quads > kChainQuads) {
    float dots[Rows][Panels][kLanes];
    for (size_t i = 0; i < Rows; ++i)
      for (size_t n = 0; n < Panels; ++n) V::store(dots[i][n], sum_f32[i][n]);
    more_chains_f32<V, Rows, Panels>(tile, tile_stride, x, stride, g.quads, dots);
    for (size_t i = 0; i < Rows; ++i)
      for (size_t n = 0; n < Panels; ++n) sum_f32[i][n] = V::load(dots[i][n]);
  }
  for (size_t n = 0; n < Panels; ++n) {
    const auto scale_f32 = V::load(g.meta + n * g.meta_stride);
    float* sum = sums + (n * g.rows + r) * kPanel;
    for (size_t i = 0; i < Rows; ++i, sum += kPanel) V::store(sum, V::fma(sum_f32[i][n], scale_f32, V::load(sum)));
  }
}

template <class V, size_t Panels>
HQQ_NOINLINE void tile_rows(const float* tile, const GroupRows& g, float* sums) {
  constexpr size_t kMost = V::kTileRows / Panels;
  size_t r = 0;
  // Two rows alone wait for each other's sums: what fours divide is left to them.
  const auto is_for_fours = [](size_t left) { return left > kMost && left % 4 == 0 && left < kMost + 4; };
  for (; r + kMost <= g.rows && !is_for_fours(g.rows - r); r += kMost) rows_f32_of<V, kMost, Panels>(tile, g, r, sums);
  for (; r + 4 <= g.rows; r += 4) rows_f32_of<V, 4, Panels>(tile, g, r, sums);
  for (; r + 2 <= g.rows; r += 2) rows_f32_of<V, 2, Panels>(tile, g, r, sums);
  for (; r < g.rows; ++r) rows_f32_of<V, 1, Panels>(tile, g, r, sums);
}

template <class V, class F>
void rows_f32(const PanelRows& p, const InputRows& in, size_t panels, float* tile, float* sums) {
  with_panels<V>(panels, [&]<size_t Panels>() HQQ_INLINE_LAMBDA {
    const auto unpack = [&](const uint8_t* codes, const float* meta) HQQ_INLINE_LAMBDA {
      for (size_t n = 0; n < Panels; ++n)
        tile_f32<V, F>(codes + n * p.codes_stride, p.quads, meta + (2 * n + 1) * kPanel,
                       tile + n * 4 * p.quads * kPanel);
    };
    const auto multiply = [&](const GroupRows& g, float* of_band)
                              HQQ_INLINE_LAMBDA { tile_rows<V, Panels>(tile, g, of_band); };
    for_groups<V, F, Panels>(p, in, sizeof(float), sums, unpack, multiply);
  });
}

template <class V, class... F>
constexpr LinearKernels make_linear(FormatList<F...>) {
  return {
      .input_i8 = &input_i8<V>,
      .input_f32 = &input_f32<V>,
      .row_f32 = {&row_f32<V, F>...},
      .pack_panel = {&pack_panel<V, F>...},
      .unpack_panel = {&unpack_panel<V, F>...},
      .tile_panels = V::kTilePanels,
      .rows_f32 = {&rows_f32<V, F>...},
      .tile_rows = &tile_rows<V, 1>,
      .bytes = make_bytes<V>(),
  };
}

}  // namespace hqq::kernels
