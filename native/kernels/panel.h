#pragma once
#include <utility>

#include "../simd/simd.h"
#include "table.h"

namespace hqq::kernels {

// Codes of panels, for any format F: core/formats.h says where they lie.

template <class V>
HQQ_INLINE typename V::U32 load_quad(const uint8_t* p) {
  return V::load_words(reinterpret_cast<const uint32_t*>(p));
}

// Where panels that are read together find what to ask for ahead of time: from memory, products of one row take half
// the time for it. Processors look ahead by themselves, but each panel is a stream of its own that soon ends.
//
// `Panels` of them end at the same time, and the next as many lie behind the last one: what a panel asks for past its
// end belongs to its successor.
template <size_t Panels>
HQQ_INLINE size_t ahead_of(const PanelRows& p, const uint8_t* codes) {
  constexpr size_t kAhead = 2048;
  const bool within = static_cast<size_t>(codes - p.codes) + kAhead < p.codes_stride;
  return within ? kAhead : kAhead + (Panels - 1) * p.codes_stride;
}

// Asks for the line at p + bytes. It may lie past the end of the array; nothing is read.
template <class V>
HQQ_INLINE void prefetch(const void* p, size_t bytes) {
  simd::prefetch<V>(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(p) + bytes));
}
template <class V, class F>
HQQ_INLINE void prefetch_unit(const uint8_t* unit, size_t ahead) {
  for (size_t at = 0; at < F::kUnitBytes; at += 64) prefetch<V>(unit, ahead + at);
}
// A group's scales and zeros, of the panel that follows those that are read together.
template <class V, size_t Panels>
HQQ_INLINE void prefetch_meta(const PanelRows& p, const std::byte* meta) {
  prefetch<V>(meta, Panels * p.meta_stride);
  if (p.form.bytes() > 64) prefetch<V>(meta, Panels * p.meta_stride + 64);
}

// The scales of a group, and its zeros: all backends widen float16 without rounding.
template <class V>
HQQ_INLINE typename V::F32 load_meta(const MetaForm& form, const std::byte* meta, size_t first) {
  if (form.half) return V::load_f16(reinterpret_cast<const uint16_t*>(meta) + first);
  return V::load(reinterpret_cast<const float*>(meta) + first);
}
template <class V>
HQQ_INLINE typename V::F32 scales_of(const MetaForm& form, const std::byte* meta) {
  return load_meta<V>(form, meta, 0);
}
template <class V>
HQQ_INLINE typename V::F32 zeros_of(const MetaForm& form, const std::byte* meta) {
  if (form.zero >= 0) return V::set(static_cast<float>(form.zero));
  return load_meta<V>(form, meta, kPanel);
}

inline constexpr uint32_t in_each_byte(uint32_t mask) { return mask * 0x01010101u; }

// Quad `Quad` of a unit: a byte a code. The same loads come again for the unit's other quads; the compiler keeps them.
template <class V, class F, int Quad, int Piece>
HQQ_INLINE typename V::U32 piece_of(const uint8_t* unit) {
  constexpr PanelPiece kPiece = F::Unit::quad(Quad).pieces[Piece];
  return V::template shift_mask<kPiece.shift, in_each_byte(kPiece.mask)>(
      load_quad<V>(unit + kPiece.vector * kQuadBytes));
}
template <class V, class F, int Quad>
HQQ_INLINE typename V::U32 quad_of(const uint8_t* unit) {
  if constexpr (F::Unit::quad(Quad).pieces[1].mask == 0) {
    return piece_of<V, F, Quad, 0>(unit);
  } else {
    return V::merge(piece_of<V, F, Quad, 0>(unit), piece_of<V, F, Quad, 1>(unit));
  }
}

// The other way: what of a quad's codes goes into vector `Vector` of its unit, beside `others`.
template <class V, class F, int Vector, int Quad, int Piece>
HQQ_INLINE typename V::U32 add_piece(typename V::U32 others, const uint8_t* codes) {
  constexpr PanelPiece kPiece = F::Unit::quad(Quad).pieces[Piece];
  if constexpr (kPiece.mask == 0 || kPiece.vector != Vector) {
    return others;
  } else {
    const auto piece = V::template shift_mask<0, in_each_byte(kPiece.mask)>(load_quad<V>(codes + Quad * kQuadBytes));
    return V::merge(others, V::template shift_left<kPiece.shift>(piece));
  }
}
template <class V, class F, int Vector>
HQQ_INLINE typename V::U32 vector_of(const uint8_t* codes) {
  constexpr uint32_t kNone[kPanel] = {};
  auto vector = V::load_words(kNone);
  [&]<int... Quad>(std::integer_sequence<int, Quad...>) HQQ_INLINE_LAMBDA {
    ((vector = add_piece<V, F, Vector, Quad, 0>(vector, codes)), ...);
    ((vector = add_piece<V, F, Vector, Quad, 1>(vector, codes)), ...);
  }(std::make_integer_sequence<int, F::Unit::kQuads>{});
  return vector;
}

// Calls body(quad, codes) for the quads of a unit.
template <class V, class F, class Body>
HQQ_INLINE void for_unit(const uint8_t* unit, Body body) {
  [&]<int... Quad>(std::integer_sequence<int, Quad...>) HQQ_INLINE_LAMBDA {
    (body(static_cast<size_t>(Quad), quad_of<V, F, Quad>(unit)), ...);
  }(std::make_integer_sequence<int, F::Unit::kQuads>{});
}

// Calls body<count>(p, out) for `Most` panels at a time, and for each that is left.
template <size_t Most, class Body>
HQQ_INLINE void by_panels(PanelRows p, size_t panels, float* out, Body body) {
  const auto next = [&]<size_t Count>() HQQ_INLINE_LAMBDA {
    body.template operator()<Count>(p, out);
    p.codes += Count * p.codes_stride, p.meta += Count * p.meta_stride, out += Count * kPanel, panels -= Count;
  };
  while (panels >= Most) next.template operator()<Most>();
  if constexpr (Most > 1)
    while (panels > 0) next.template operator()<1>();
}

// For each group of `Panels` panels, calls unpack(codes, meta), meta[panels][2][16] being their scales and zeros, then
// multiply(group, sums) for each band of rows, which adds to sums[panels][rows][16] of that band. `width` is that of a
// value of x in bytes.
template <class V, class F, size_t Panels, class Unpack, class Multiply>
HQQ_INLINE void for_groups(const PanelRows& p, const InputRows& x, size_t width, float* sums, Unpack unpack,
                           Multiply multiply) {
  const size_t group_bytes = p.quads / F::kUnitQuads * F::kUnitBytes, segments = input_segments(p.quads);
  const size_t sums_of_band = Panels * x.rows * kPanel;
  for (size_t i = 0; i < x.bands * sums_of_band; ++i) sums[i] = 0.0f;
  for (size_t g = 0; g < p.groups; ++g) {
    const std::byte* from = p.meta + g * p.form.bytes();
    const uint8_t* codes = p.codes + g * group_bytes;
    float meta[Panels * 2 * kPanel];
    const size_t ahead = ahead_of<Panels>(p, codes);
    const auto ask = [&](size_t n) HQQ_INLINE_LAMBDA {
      for (size_t at = 0; at < group_bytes; at += 64) prefetch<V>(codes + n * p.codes_stride, ahead + at);
      prefetch_meta<V, Panels>(p, from + n * p.meta_stride);
    };
    ask(0);
    for (size_t n = 0; n < Panels; ++n) {
      V::store(meta + n * 2 * kPanel, scales_of<V>(p.form, from + n * p.meta_stride));
      V::store(meta + (2 * n + 1) * kPanel, zeros_of<V>(p.form, from + n * p.meta_stride));
    }
    unpack(codes, meta);
    for (size_t b = 0; b < x.bands; ++b) {
      const size_t row = (b * p.groups + g) * x.rows;
      const Input in{static_cast<const uint8_t*>(x.first.values) + row * 4 * p.quads * width,
                     x.first.scale + row * segments, x.first.sum + row * segments, x.first.total + row};
      multiply(GroupRows{meta, 2 * kPanel, in, x.rows, p.quads}, sums + b * sums_of_band);
    }
    for (size_t n = 1; n < Panels; ++n) ask(n);  // later, because only so many reads can be under way
  }
}

// Calls body<panels>(): as many as a tile has, or one.
template <class V, class Body>
HQQ_INLINE void with_panels(size_t panels, Body body) {
  if constexpr (V::kTilePanels > 1)
    if (panels == V::kTilePanels) return body.template operator()<V::kTilePanels>();
  body.template operator()<1>();
}

// bytes[quads][16][4] = the codes
template <class V, class F>
void unpack_panel(const uint8_t* codes, size_t quads, uint8_t* bytes) {
  for (size_t q = 0; q < quads; q += F::kUnitQuads, codes += F::kUnitBytes)
    for_unit<V, F>(codes, [&](size_t i, typename V::U32 quad) {
      V::store_words(reinterpret_cast<uint32_t*>(bytes + (q + i) * kQuadBytes), quad);
    });
}

// codes = bytes[quads][16][4], packed
template <class V, class F>
void pack_panel(const uint8_t* bytes, size_t quads, uint8_t* codes) {
  for (size_t q = 0; q < quads; q += F::kUnitQuads, bytes += F::kUnitQuads * kQuadBytes)
    [&]<int... Vector>(std::integer_sequence<int, Vector...>) HQQ_INLINE_LAMBDA {
      (V::store_words(reinterpret_cast<uint32_t*>(codes + Vector * kQuadBytes), vector_of<V, F, Vector>(bytes)), ...);
      codes += F::kUnitBytes;
    }(std::make_integer_sequence<int, F::Unit::kVectors>{});
}

}  // namespace hqq::kernels
