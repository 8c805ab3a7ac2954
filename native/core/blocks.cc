#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "block_bytes.h"
#include "operations.h"
#include "parallel.h"
#include "scratch.h"

namespace hqq::core {
namespace {

using kernels::kLanes;

// Weights of a unit of work, in whole blocks of every type, and in whole calls of the kernel.
constexpr size_t kBlocksUnit = kDistanceTile;

constexpr uint32_t kInfinity = 0x7f800000;  // bits of it

// d and m of blocks, as floats: [blocks, 2]
void widen_halves(const Context& context, const BlockType& type, const uint8_t* blocks, size_t count, uint16_t* halves,
                  float* to) {
  for (size_t i = 0; i < count; ++i) {
    std::memcpy(halves + 2 * i, blocks + i * type.bytes + type.d, 2);
    std::memcpy(halves + 2 * i + 1, blocks + i * type.bytes + type.m, 2);
  }
  context.kernels.widen[static_cast<size_t>(DType::f16)](halves, 2 * count, to);
}

struct Affine {
  float scale, minimum;
};

Affine affine_of(const BlockType& type, const BlockParts& parts, const float* halves, size_t sub) {
  if (type.meta == BlockMeta::none) return {halves[0], type.minima ? -halves[1] : 0.0f};
  const size_t subs = type.subs();
  return {halves[0] * static_cast<float>(parts.metas[sub]),
          type.minima ? halves[1] * static_cast<float>(parts.metas[subs + sub]) : 0.0f};
}

// A stored code as the number that scales multiply.
int number_of(const BlockType& type, uint8_t code) {
  if (type.curved) return kCurve[code & 15];
  return type.codes[0].bits == 8 ? static_cast<int8_t>(code) : code - type.bias;
}

void decode_one(const BlockType& type, const uint8_t* block, const float* halves, float* out) {
  BlockParts parts;
  unpack_block(type, block, parts);
  float numbers[256];
  for (int code = 0; code < (type.codes[0].bits == 8 ? 256 : 64); ++code)
    numbers[code] = static_cast<float>(number_of(type, static_cast<uint8_t>(code)));
  for (size_t sub = 0, i = 0; sub < type.subs(); ++sub) {
    const auto [scale, minimum] = affine_of(type, parts, halves, sub);
    for (const size_t end = i + type.sub; i < end; ++i) out[i] = scale * numbers[parts.codes[i]] - minimum;
  }
}

// The same as codes from 0 on, with (code - zero) * scale. A scale of 0 has no zero that would give a minimum: there
// codes are 0 and scales 1.
void split_one(const BlockType& type, const uint8_t* block, const float* halves, uint8_t* codes, float* scale,
               float* zero) {
  BlockParts parts;
  unpack_block(type, block, parts);
  const int first = type.curved ? -128 : type.codes[0].bits == 8 ? -128 : -type.bias;
  for (size_t sub = 0, i = 0; sub < type.subs(); ++sub) {
    const Affine affine = affine_of(type, parts, halves, sub);
    const bool flat = affine.scale == 0.0f;
    scale[sub] = flat ? 1.0f : affine.scale;
    zero[sub] = flat ? affine.minimum : affine.minimum / affine.scale - static_cast<float>(first);
    for (const size_t end = i + type.sub; i < end; ++i)
      codes[i] = flat ? uint8_t{0} : static_cast<uint8_t>(number_of(type, parts.codes[i]) - first);
  }
}

// The first weight that is not finite, or `count`.
size_t first_bad(const float* weights, size_t count) {
  uint32_t bad = 0;
  for (size_t i = 0; i < count; ++i) bad |= (std::bit_cast<uint32_t>(weights[i]) & kInfinity) == kInfinity ? 1u : 0u;
  if (bad == 0) return count;
  return static_cast<size_t>(std::find_if(weights, weights + count, [](float w) { return !std::isfinite(w); }) -
                             weights);
}

}  // namespace

Status decode_blocks(const Context& context, const DecodeBlocks& op) {
  const BlockType& type = *op.type;
  const size_t per_unit = kBlocksUnit / type.weights;
  Scratch scratch;
  const size_t halves_at = scratch.reserve<uint16_t>(2 * per_unit), floats_at = scratch.reserve<float>(2 * per_unit);
  scratch.allocate(context.threads);
  return parallel_for(context, (op.count + per_unit - 1) / per_unit, [&](size_t unit, int slot) {
    const size_t first = unit * per_unit, count = std::min(per_unit, op.count - first);
    const uint8_t* const blocks = op.blocks + first * type.bytes;
    auto* const floats = scratch.at<float>(floats_at, slot);
    widen_halves(context, type, blocks, count, scratch.at<uint16_t>(halves_at, slot), floats);
    for (size_t i = 0; i < count; ++i) {
      const size_t block = first + i;
      if (op.codes == nullptr)
        decode_one(type, blocks + i * type.bytes, floats + 2 * i, op.out + block * type.weights);
      else
        split_one(type, blocks + i * type.bytes, floats + 2 * i, op.codes + block * type.weights,
                  op.scale + block * type.subs(), op.zero + block * type.subs());
    }
  });
}

Status encode_blocks(const Context& context, const EncodeBlocks& op) {
  const BlockType& type = *op.type;
  const size_t total = op.rows * op.cols, units = (total + kBlocksUnit - 1) / kBlocksUnit;
  const size_t together = kLanes * type.sub;
  std::vector<kernels::BlockError> sums(units);
  std::vector<size_t> bad(units, total);
  Scratch scratch;
  const size_t weights_at = scratch.reserve<float>(kBlocksUnit), importance_at = scratch.reserve<float>(kBlocksUnit);
  const size_t parts_at = scratch.reserve<BlockParts>(kLanes);
  scratch.allocate(context.threads);
  const size_t size = bytes_of(op.dtype);
  const Status status = parallel_for(context, units, [&](size_t unit, int slot) {
    const size_t first = unit * kBlocksUnit, count = std::min(kBlocksUnit, total - first);
    auto* const weights = scratch.at<float>(weights_at, slot);
    auto* const importance = op.importance == nullptr ? nullptr : scratch.at<float>(importance_at, slot);
    context.kernels.widen[static_cast<size_t>(op.dtype)](static_cast<const std::byte*>(op.weights) + first * size,
                                                         count, weights);
    const size_t wrong = first_bad(weights, count);
    if (wrong < count) {
      bad[unit] = first + wrong;
      return;
    }
    const size_t padded = (count + together - 1) / together * together;
    std::fill(weights + count, weights + padded, 0.0f);
    if (importance != nullptr) {
      for (size_t i = 0, col = first % op.cols; i < count; ++i) {
        importance[i] = op.importance[col];
        col = col + 1 < op.cols ? col + 1 : 0;
      }
      std::fill(importance + count, importance + padded, 0.0f);
    }
    auto* const parts = scratch.at<BlockParts>(parts_at, slot);
    uint8_t* to = op.blocks + first / type.weights * type.bytes;
    for (size_t i = 0; i < padded; i += together) {
      context.kernels.encode_blocks(type, op.options, weights + i, importance == nullptr ? nullptr : importance + i,
                                    parts, sums[unit]);
      const size_t own = std::min(together, count - i) / type.weights;
      for (size_t k = 0; k < own; ++k, to += type.bytes) pack_block(type, parts[k], to);
    }
  });
  if (status != Status::ok) return status;
  kernels::BlockError all{};
  size_t worst = total;
  for (size_t unit = 0; unit < units; ++unit) {
    worst = std::min(worst, bad[unit]);
    all.abs_error += sums[unit].abs_error;
    all.squared_error += sums[unit].squared_error;
    all.squared += sums[unit].squared;
  }
  op.stats[0] = all.abs_error, op.stats[1] = all.squared_error, op.stats[2] = all.squared;
  op.stats[3] = op.options.rounds;
  op.stats[4] = worst == total ? -1.0 : static_cast<double>(worst);
  return status;
}

}  // namespace hqq::core
