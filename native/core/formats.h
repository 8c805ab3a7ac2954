#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace hqq {

// How codes are stored, in words on disk and in panels in memory: `Formats` is the one list. From it come the rows that
// operations read, the tables of kernels, what lib/matrix/format.ts is compared with (test/constants.test.ts), and the
// cases of tests.

// `linear` reads codes in panels. A panel is kPanel outputs; a quad is four consecutive weights of each, a byte a code,
// in the order [output][weight]; a vector is as many bytes. A unit is some quads in some vectors, byte over byte.
inline constexpr size_t kPanel = 16;
inline constexpr size_t kQuadBytes = kPanel * 4;

// Bits of a code that lie together: code |= vector >> shift & mask, and vector |= (code & mask) << shift.
struct PanelPiece {
  int vector = 0, shift = 0;
  uint32_t mask = 0;  // 0: no piece
};

// Where a quad's codes lie: in one piece, or two.
struct PanelQuad {
  std::array<PanelPiece, 2> pieces;
};

// As many quads as fit a byte, the first in its top bits.
template <int Bits>
struct InOneVector {
  static constexpr int kBits = Bits, kQuads = 8 / Bits, kVectors = 1;
  static constexpr PanelQuad quad(int q) { return {{{{0, 8 - Bits * (q + 1), (1u << Bits) - 1}, {}}}}; }
};

// Eight quads of 3 bits in three vectors, so that no bit is lost and most codes are a shift away: two in the low six
// bits of each; of the last two, the low bits at the top of vectors 0 and 1, the highest ones at the top of vector 2.
struct ThreeBitsInThreeVectors {
  static constexpr int kBits = 3, kQuads = 8, kVectors = 3;
  static constexpr PanelQuad quad(int q) {
    if (q < 6) return {{{{q / 2, 3 * (q % 2), 7}, {}}}};
    return {{{{q - 6, 6, 3}, {2, q - 2, 4}}}};
  }
};

// Field f of packed row r holds row f * step + r of the grouped code matrix, the first field in the most significant
// bits:
//
//   word[r][c] = sum over f of  code[f * step + r][c] << shift(f)        step = ceil(rows / kFields)
//
// Layout: mobiusml/hqq hqq/core/bitpack.py.
template <class W, class InPanels>
struct StoredCodes {
  using Word = W;
  using Unit = InPanels;
  static constexpr int kBits = Unit::kBits;
  static constexpr uint32_t kMask = (1u << kBits) - 1;
  static constexpr int kFields = static_cast<int>(sizeof(W)) * 8 / kBits;
  static constexpr int shift(int field) { return (kFields - 1 - field) * kBits; }
  static constexpr size_t kUnitQuads = Unit::kQuads, kUnitBytes = Unit::kVectors * kQuadBytes;

  // Whether pieces make whole codes, and none lies over another.
  static constexpr bool is_sound() {
    uint32_t taken[Unit::kVectors] = {};
    for (int q = 0; q < Unit::kQuads; ++q) {
      uint32_t code = 0;
      for (const PanelPiece& piece : Unit::quad(q).pieces) {
        const uint32_t bits = piece.mask << piece.shift;
        if ((code & piece.mask) != 0 || (taken[piece.vector] & bits) != 0 || bits > 255) return false;
        code |= piece.mask, taken[piece.vector] |= bits;
      }
      if (code != kMask) return false;
    }
    return true;
  }
};

template <class... F>
struct FormatList {
  static_assert((F::is_sound() && ...));
};

// The list, in the order of FORMATS in lib/matrix/format.ts.
using Formats = FormatList<StoredCodes<uint8_t, InOneVector<8>>,            //
                           StoredCodes<uint8_t, InOneVector<4>>,            //
                           StoredCodes<uint32_t, ThreeBitsInThreeVectors>,  //
                           StoredCodes<uint8_t, InOneVector<2>>,            //
                           StoredCodes<uint8_t, InOneVector<1>>>;

inline constexpr size_t kMaxUnitQuads = 8;

// A place in the list.
enum class Format : uint8_t {};

struct FormatRow {
  int bits;                   // of a code
  size_t word_bytes, fields;  // codes in a word
  size_t quads, bytes;        // of a unit of a panel
  std::array<PanelQuad, kMaxUnitQuads> places;
};

template <class... F>
constexpr auto rows_of(FormatList<F...>) {
  const auto places = []<class Unit>(Unit) {
    std::array<PanelQuad, kMaxUnitQuads> quads{};
    for (int q = 0; q < Unit::kQuads; ++q) quads[static_cast<size_t>(q)] = Unit::quad(q);
    return quads;
  };
  return std::array{FormatRow{F::kBits, sizeof(typename F::Word), F::kFields, F::kUnitQuads, F::kUnitBytes,
                              places(typename F::Unit{})}...};
}
inline constexpr auto kFormats = rows_of(Formats{});
inline constexpr size_t kFormatCount = kFormats.size();
inline constexpr size_t kMaxFields =
    std::max_element(kFormats.begin(), kFormats.end(), [](const FormatRow& a, const FormatRow& b) {
      return a.fields < b.fields;
    })->fields;

inline constexpr const FormatRow& row_of(Format format) { return kFormats[static_cast<size_t>(format)]; }

inline constexpr auto kAllFormats = [] {
  std::array<Format, kFormatCount> all{};
  for (size_t i = 0; i < kFormatCount; ++i) all[i] = static_cast<Format>(i);
  return all;
}();

// x as bytes has a step of its own for every so many weights of a group.
inline constexpr size_t kInputSegment = 32;
inline constexpr size_t kInputQuads = kInputSegment / 4;
// Longest group whose products, summed as integers, fit 32 bits.
inline constexpr size_t kLongestGroup = size_t{1} << 16;

// Quads of a group, with what pads it.
inline constexpr size_t quads_of(Format format, size_t group_size) {
  const size_t unit = row_of(format).quads;
  return ((group_size + 3) / 4 + unit - 1) / unit * unit;
}
inline constexpr size_t input_segments(size_t quads) { return (quads + kInputQuads - 1) / kInputQuads; }
inline constexpr size_t bytes_of_quads(Format format, size_t quads) {
  return quads / row_of(format).quads * row_of(format).bytes;
}

}  // namespace hqq
