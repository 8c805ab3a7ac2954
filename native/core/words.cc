#include <algorithm>
#include <cstring>

#include "operations.h"
#include "parallel.h"

namespace hqq::core {

namespace {

// Lines that are packed together: where they are columns of the output, their words fill a cache line.
constexpr size_t kLines = 16;

// Words of each that are: what is read and written meanwhile stays in the first-level cache. With any number of bits
// they end with a code.
constexpr size_t kWords = 3 * 5 * 7;

// Words behind these that may be written, too.
constexpr size_t kMore = 4;

// Eight codes, a byte each, side by side: `bits` bytes. What of them is no code is dropped.
uint64_t fold(uint64_t codes, unsigned bits) {
  constexpr uint64_t kEach = 0x0101010101010101;
  const uint64_t x = codes & (kEach * ((1u << bits) - 1));
  const uint64_t pairs = (x & 0x00ff00ff00ff00ff) | ((x & 0xff00ff00ff00ff00) >> (8 - bits));
  const uint64_t fours = (pairs & 0x0000ffff0000ffff) | ((pairs & 0xffff0000ffff0000) >> (16 - 2 * bits));
  return (fours & 0xffffffff) | (fours >> 32 << 4 * bits);
}

// `count` codes as a bit stream, and zeros behind it. `words` has room for kMore more than that.
template <unsigned kBits>
void pack_stream(const uint8_t* codes, size_t count, uint32_t* words) {
  auto* bytes = reinterpret_cast<std::byte*>(words);
  size_t i = 0;
  for (; i + 8 <= count; i += 8, bytes += kBits) {
    uint64_t eight;
    std::memcpy(&eight, codes + i, 8);
    eight = fold(eight, kBits);
    std::memcpy(bytes, &eight, 8);
  }
  uint64_t rest[2] = {};
  std::memcpy(rest, codes + i, count - i);
  rest[0] = fold(rest[0], kBits);
  std::memcpy(bytes, rest, sizeof(rest));
}

using PackStream = void (*)(const uint8_t*, size_t, uint32_t*);
constexpr PackStream kPackStream[] = {pack_stream<1>, pack_stream<2>, pack_stream<3>, pack_stream<4>,
                                      pack_stream<5>, pack_stream<6>, pack_stream<7>, pack_stream<8>};

// Words of one code of 4 bits of each of eight rows; bytes first, which lie close in vectors of the compiler's own.
void pack_rows(const uint8_t* const (&rows)[8], size_t count, uint32_t* words) {
  uint8_t bytes[4][kWords];
  for (size_t j = 0; j < 4; ++j) {
    const uint8_t *low = rows[2 * j], *high = rows[2 * j + 1];
    for (size_t i = 0; i < count; ++i) bytes[j][i] = static_cast<uint8_t>((low[i] & 15) | (high[i] << 4));
  }
  for (size_t i = 0; i < count; ++i) {
    words[i] = bytes[0][i] | static_cast<uint32_t>(bytes[1][i]) << 8 | static_cast<uint32_t>(bytes[2][i]) << 16 |
               static_cast<uint32_t>(bytes[3][i]) << 24;
  }
}

}  // namespace

Status pack_words(const Context& context, const PackWords& op) {
  const size_t lines = op.lines(), width = op.width();
  const size_t tiles = (lines + kLines - 1) / kLines, parts = (width + kWords - 1) / kWords;
  return parallel_for(context, tiles, [&](size_t tile, int) {
    uint32_t words[kLines][kWords + kMore];
    const size_t top = tile * kLines, height = std::min(kLines, lines - top);
    for (size_t part = 0; part < parts; ++part) {
      const size_t left = part * kWords, count = std::min(kWords, width - left);
      for (size_t l = 0; l < height; ++l) {
        if (op.across) {
          const uint8_t* rows[8];
          for (size_t j = 0; j < 8; ++j) rows[j] = op.codes + ((top + l) * 8 + op.order[j]) * op.cols + left;
          pack_rows(rows, count, words[l]);
        } else {
          const size_t first = left * 32 / op.bits;
          kPackStream[op.bits - 1](op.codes + (top + l) * op.cols + first,
                                   std::min(op.cols - first, kWords * 32 / op.bits), words[l]);
        }
        if (!op.turned) std::memcpy(op.words + (top + l) * op.step + left, words[l], count * sizeof(uint32_t));
      }
      if (!op.turned) continue;
      auto* const to = reinterpret_cast<uint32_t*>(op.words) + left * op.step + top;
      context.kernels.transpose_u32(words[0], height, count, kWords + kMore, to, op.step);
    }
  });
}

}  // namespace hqq::core
