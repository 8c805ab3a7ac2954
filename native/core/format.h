#pragma once
#include <cstddef>
#include <cstdint>

namespace hqq {

// How codes sit in words. Field f of packed row r holds row f * step + r of the grouped code matrix, the first field in
// the most significant bits:
//
//   word[r][c] = sum over f of  code[f * step + r][c] << shift(f)        step = ceil(rows / kFields)
//
// Layout: mobiusml/hqq hqq/core/bitpack.py.
template <class W, int Bits>
struct PackFormat {
  using Word = W;
  static constexpr int kBits = Bits;
  static constexpr int kFields = static_cast<int>(sizeof(W)) * 8 / Bits;
  static constexpr uint32_t kMask = (1u << Bits) - 1;
  static constexpr int shift(int field) { return (kFields - 1 - field) * Bits; }
};

inline constexpr int kMaxFields = 10;

// One row per format, in the order of FORMATS in lib/matrix/format.ts: X(name, word, bits).
#define HQQ_FOR_EACH_FORMAT(X) \
  X(u8x1, uint8_t, 8)          \
  X(u8x2, uint8_t, 4)          \
  X(u32x10, uint32_t, 3)       \
  X(u8x4, uint8_t, 2)          \
  X(u8x8, uint8_t, 1)

#define HQQ_FORMAT_NAME(name, word, bits) name,
enum class Format : uint8_t { HQQ_FOR_EACH_FORMAT(HQQ_FORMAT_NAME) };
#undef HQQ_FORMAT_NAME

struct FormatRow {
  size_t word_bytes;
  size_t fields;
};
#define HQQ_FORMAT_ROW(name, word, bits) {sizeof(word), PackFormat<word, bits>::kFields},
inline constexpr FormatRow kFormats[] = {HQQ_FOR_EACH_FORMAT(HQQ_FORMAT_ROW)};
#undef HQQ_FORMAT_ROW
inline constexpr int kFormatCount = sizeof(kFormats) / sizeof(kFormats[0]);

inline constexpr const FormatRow& row_of(Format format) { return kFormats[static_cast<size_t>(format)]; }

// How `linear` reads codes. A panel is kPanel outputs, a quad is four consecutive weights of each: one byte a code, in
// the order [output][weight]. Quads go into words as rows do in PackFormat, a unit of `quads` to 64-byte vectors; codes
// of 3 bits to three vectors a, b, c, so that most are a shift away: quads 0 and 1 in the low six bits of a, 2 and 3 of
// b, 4 and 5 of c; the low two bits of quad 6 at the top of a, of 7 of b; their highest bits at the top of c. PANELS in
// lib/matrix/panels.ts.
inline constexpr size_t kPanel = 16;
inline constexpr size_t kQuadBytes = kPanel * 4;
// x as bytes has a step of its own for every so many weights of a group. INPUT_BLOCK in lib/matrix/panels.ts.
inline constexpr size_t kInputBlock = 32;
inline constexpr size_t kInputQuads = kInputBlock / 4;
struct PanelRow {
  int bits;
  size_t quads, bytes;
};
inline constexpr PanelRow kPanels[] = {{8, 1, 64}, {4, 2, 64}, {3, 8, 192}, {2, 4, 64}, {1, 8, 64}};
static_assert(sizeof(kPanels) / sizeof(kPanels[0]) == kFormatCount);
inline constexpr const PanelRow& panel_of(Format format) { return kPanels[static_cast<size_t>(format)]; }
// Quads of a group, with what pads it.
inline constexpr size_t quads_of(Format format, size_t group_size) {
  const size_t unit = panel_of(format).quads;
  return ((group_size + 3) / 4 + unit - 1) / unit * unit;
}
inline constexpr size_t input_blocks(size_t quads) { return (quads + kInputQuads - 1) / kInputQuads; }
inline constexpr size_t bytes_of_quads(Format format, size_t quads) {
  return quads / panel_of(format).quads * panel_of(format).bytes;
}

}  // namespace hqq
