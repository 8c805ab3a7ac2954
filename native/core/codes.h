#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "formats.h"

namespace hqq::core {

// The grouped code matrix [rows, cols] in its packed words, one code at a time.
struct PackedCodes {
  const void* packed;
  Format format;
  size_t cols, step;

  // codes[i] = code of row `row`, column `col + i`
  void read(size_t row, size_t col, size_t count, uint8_t* codes) const {
    const auto at = (row % step) * cols + col;
    const FormatRow& stored = row_of(format);
    const int shift = static_cast<int>(stored.fields - 1 - row / step) * stored.bits;
    const uint32_t mask = (1u << stored.bits) - 1;
    if (stored.word_bytes == 1) {
      const auto* words = static_cast<const uint8_t*>(packed) + at;
      for (size_t i = 0; i < count; ++i) codes[i] = static_cast<uint8_t>((words[i] >> shift) & static_cast<int>(mask));
    } else {
      const auto* words = static_cast<const uint32_t*>(packed) + at;
      for (size_t i = 0; i < count; ++i) codes[i] = static_cast<uint8_t>((words[i] >> shift) & mask);
    }
  }
};

}  // namespace hqq::core
