#pragma once
#include <cstring>

#include "block_types.h"

// Blocks as bytes: codes and whole scales in and out of them.
namespace hqq::core {

inline void put_bits(const BlockBits& piece, const uint8_t* values, size_t count, uint8_t* block) {
  if (piece.bits == 0) return;
  const uint8_t mask = static_cast<uint8_t>((1u << piece.bits) - 1);
  const size_t parts = 8u / piece.bits;
  for (size_t first = 0, to = piece.offset; first < count; to += piece.run)
    for (size_t part = 0; part < parts && first < count; ++part, first += piece.run)
      for (size_t i = 0; i < piece.run; ++i)
        block[to + i] =
            static_cast<uint8_t>(block[to + i] | (values[first + i] >> piece.at & mask) << (part * piece.bits));
}

inline void take_bits(const BlockBits& piece, const uint8_t* block, size_t count, uint8_t* values) {
  if (piece.bits == 0) return;
  const uint8_t mask = static_cast<uint8_t>((1u << piece.bits) - 1);
  const size_t parts = 8u / piece.bits;
  for (size_t first = 0, from = piece.offset; first < count; from += piece.run)
    for (size_t part = 0; part < parts && first < count; ++part, first += piece.run)
      for (size_t i = 0; i < piece.run; ++i)
        values[first + i] =
            static_cast<uint8_t>(values[first + i] | (block[from + i] >> (part * piece.bits) & mask) << piece.at);
}

inline void pack_block(const BlockType& type, const BlockParts& parts, uint8_t* block) {
  std::memset(block, 0, type.bytes);
  const size_t subs = type.subs();
  for (const BlockBits& piece : type.codes) put_bits(piece, parts.codes, type.weights, block);
  const auto half = [&](size_t at, uint16_t value) {
    block[at] = static_cast<uint8_t>(value & 255), block[at + 1] = static_cast<uint8_t>(value >> 8);
  };
  half(type.d, parts.d);
  if (type.minima) half(type.m, parts.m);
  if (type.meta == BlockMeta::none) return;
  uint8_t metas[2 * kMostSubBlocks];
  const size_t count = type.minima ? 2 * subs : subs;
  for (size_t i = 0; i < count; ++i) metas[i] = static_cast<uint8_t>(parts.metas[i] + (i < subs ? type.meta_bias : 0));
  if (type.meta == BlockMeta::bits) {
    for (const BlockBits& piece : type.metas) put_bits(piece, metas, count, block);
    return;
  }
  uint8_t* const b = block + type.metas[0].offset;
  const auto upper = [](uint8_t value) { return static_cast<uint8_t>((value >> 4) << 6); };
  for (size_t j = 0; j < 4; ++j) {
    const uint8_t *scales = metas, *minima = metas + 8;
    b[j] = static_cast<uint8_t>(scales[j] | upper(scales[j + 4]));
    b[j + 4] = static_cast<uint8_t>(minima[j] | upper(minima[j + 4]));
    b[j + 8] = static_cast<uint8_t>((scales[j + 4] & 15) | (minima[j + 4] & 15) << 4);
  }
}

inline void unpack_block(const BlockType& type, const uint8_t* block, BlockParts& parts) {
  const size_t subs = type.subs();
  std::memset(parts.codes, 0, type.weights);
  for (const BlockBits& piece : type.codes) take_bits(piece, block, type.weights, parts.codes);
  const auto half = [&](size_t at) { return static_cast<uint16_t>(block[at] | block[at + 1] << 8); };
  parts.d = half(type.d);
  parts.m = type.minima ? half(type.m) : uint16_t{0};
  uint8_t metas[2 * kMostSubBlocks] = {};
  if (type.meta == BlockMeta::bits) {
    for (const BlockBits& piece : type.metas) take_bits(piece, block, type.minima ? 2 * subs : subs, metas);
  } else if (type.meta == BlockMeta::pairs) {
    const uint8_t* const b = block + type.metas[0].offset;
    for (size_t j = 0; j < 4; ++j) {
      metas[j] = b[j] & 63, metas[j + 8] = b[j + 4] & 63;
      metas[j + 4] = static_cast<uint8_t>((b[j + 8] & 15) | (b[j] >> 6) << 4);
      metas[j + 12] = static_cast<uint8_t>((b[j + 8] >> 4) | (b[j + 4] >> 6) << 4);
    }
  }
  for (size_t i = 0; i < 2 * subs; ++i) {
    const bool scale = i < subs;
    // Numbers of eight bits are signed.
    const int value = scale && type.metas[0].bits == 8 ? static_cast<int8_t>(metas[i]) : metas[i];
    parts.metas[i] = value - (scale ? type.meta_bias : 0);
  }
}

}  // namespace hqq::core
