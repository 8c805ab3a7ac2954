#pragma once
#include <cstddef>
#include <cstdint>

// ggml's block types: a block is codes of some weights, in sub-blocks that have a scale, and some a minimum, of their
// own. lib/matrix/block-types.ts is the same table.
namespace hqq {

// Where bits of some values lie: value i has `bits` bits, from bit `at` of it on, in byte `offset + run * (i / period)
// + i % run`, shifted by bits * (i % period / run); period is run * 8 / bits.
struct BlockBits {
  uint16_t offset;
  uint8_t bits;  // 1, 2, 4 or 8; 0: none
  uint8_t run;
  uint8_t at;
};

// How the whole numbers lie that scales and minima of sub-blocks are.
enum class BlockMeta : uint8_t {
  none,   // a block is one sub-block: its scale is d, its minimum -m
  bits,   // as BlockBits say: of all scales, then of all minima
  pairs,  // eight scales and eight minima of six bits in twelve bytes
};

struct BlockType {
  const char* name;
  uint16_t weights, bytes;  // of a block
  uint8_t sub;              // weights of a sub-block
  bool minima;              // w = scale * code - minimum; else w = scale * code
  bool curved;              // codes are places in kCurve, whose numbers are multiplied
  int16_t low, high;        // codes
  int16_t bias;             // that is added to a code where it is stored
  BlockBits codes[2];
  uint16_t d, m;  // places of two float16 numbers: what scales are multiples of, and minima (which `none` stores as -m)
  BlockMeta meta;
  int16_t meta_low, meta_high, meta_bias;  // of whole scales; those of minima begin with 0
  BlockBits metas[2];                      // of `bits`; `pairs` begin at the first one's offset

  constexpr size_t subs() const { return size_t{weights} / sub; }
};

// Nonlinear levels of four-bit codes.
// Not inline, so that each file has its own copy and none is merged across instruction sets.
constexpr int8_t kCurve[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

inline constexpr BlockType kBlockTypes[] = {
    {"Q4_0", 32, 18, 32, false, false, -8, 7, 8, {{2, 4, 16, 0}, {}}, 0, 0, BlockMeta::none, 0, 0, 0, {}},
    {"Q4_1", 32, 20, 32, true, false, 0, 15, 0, {{4, 4, 16, 0}, {}}, 0, 2, BlockMeta::none, 0, 0, 0, {}},
    {"Q5_0", 32, 22, 32, false, false, -16, 15, 16, {{6, 4, 16, 0}, {2, 1, 1, 4}}, 0, 0, BlockMeta::none, 0, 0, 0, {}},
    {"Q5_1", 32, 24, 32, true, false, 0, 31, 0, {{8, 4, 16, 0}, {4, 1, 1, 4}}, 0, 2, BlockMeta::none, 0, 0, 0, {}},
    {"Q8_0", 32, 34, 32, false, false, -127, 127, 0, {{2, 8, 32, 0}, {}}, 0, 0, BlockMeta::none, 0, 0, 0, {}},
    {"Q2_K",
     256,
     84,
     16,
     true,
     false,
     0,
     3,
     0,
     {{16, 2, 32, 0}, {}},
     80,
     82,
     BlockMeta::bits,
     0,
     15,
     0,
     {{0, 4, 16, 0}, {}}},
    {"Q3_K",
     256,
     110,
     16,
     false,
     false,
     -4,
     3,
     4,
     {{32, 2, 32, 0}, {0, 1, 32, 2}},
     108,
     0,
     BlockMeta::bits,
     -32,
     31,
     32,
     {{96, 4, 8, 0}, {104, 2, 4, 4}}},
    {"Q4_K",
     256,
     144,
     32,
     true,
     false,
     0,
     15,
     0,
     {{16, 4, 32, 0}, {}},
     0,
     2,
     BlockMeta::pairs,
     0,
     63,
     0,
     {{4, 0, 0, 0}, {}}},
    {"Q5_K",
     256,
     176,
     32,
     true,
     false,
     0,
     31,
     0,
     {{48, 4, 32, 0}, {16, 1, 32, 4}},
     0,
     2,
     BlockMeta::pairs,
     0,
     63,
     0,
     {{4, 0, 0, 0}, {}}},
    {"Q6_K",
     256,
     210,
     16,
     false,
     false,
     -32,
     31,
     32,
     {{0, 4, 64, 0}, {128, 2, 32, 4}},
     208,
     0,
     BlockMeta::bits,
     -127,
     127,
     0,
     {{192, 8, 16, 0}, {}}},
    {"IQ4_NL", 32, 18, 32, false, true, 0, 15, 0, {{2, 4, 16, 0}, {}}, 0, 0, BlockMeta::none, 0, 0, 0, {}},
    {"IQ4_XS",
     256,
     136,
     32,
     false,
     true,
     0,
     15,
     0,
     {{8, 4, 16, 0}, {}},
     0,
     0,
     BlockMeta::bits,
     -32,
     31,
     32,
     {{4, 4, 1, 0}, {2, 2, 1, 4}}},
};
inline constexpr size_t kBlockTypeCount = sizeof(kBlockTypes) / sizeof(kBlockTypes[0]);
inline constexpr size_t kMostBlockWeights = 256, kMostSubBlocks = 16;

// What a block says. Codes and scales are as they are computed with; minima are 0 where there are none.
struct BlockParts {
  uint8_t codes[kMostBlockWeights];  // as they are stored: with the bias
  int metas[2 * kMostSubBlocks];     // whole scales, then whole minima, without the bias
  uint16_t d, m;                     // float16; m is that of minima, or the minimum itself, which is added
};

}  // namespace hqq
