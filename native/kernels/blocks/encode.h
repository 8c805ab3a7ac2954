#pragma once
#include "fit.h"

namespace hqq::kernels {

// Encodes as many blocks as sixteen sub-blocks are: [kLanes * sub] weights, which are finite.
template <class V>
void encode_blocks(const BlockType& type, const BlockOptions& options, const float* weights, const float* importance,
                   BlockParts* blocks, BlockError& error) {
  constexpr size_t kMostSub = 32;
  alignas(64) float turned[kMostSub * kLanes], turned_importance[kMostSub * kLanes];
  alignas(64) uint8_t lanes[kMostSub * kLanes], codes[kMostSub * kLanes];
  const size_t sub = type.sub, subs = type.subs();
  const auto turn = [&](const float* from, float* to) {
    for (size_t i = 0; i < sub; i += kLanes)
      V::transpose16(reinterpret_cast<const uint32_t*>(from + i), sub, reinterpret_cast<uint32_t*>(to + i * kLanes),
                     kLanes);
  };
  turn(weights, turned);
  if (importance != nullptr) turn(importance, turned_importance);
  BlockFit<V> fit(type, options, {turned, importance != nullptr ? turned_importance : nullptr, sub});
  fit.fit();
  if (type.meta == BlockMeta::none)
    fit.settle_halves();
  else
    fit.settle_whole();
  // Codes that are signed bytes are stored from 128 on, and turned back.
  const bool bytes = type.codes[0].bits == 8;
  BlockErrors errors;
  place_codes<V>(fit.strip, fit.range, fit.scale, fit.minimum, bytes ? 128.0f : type.bias, lanes, errors);
  for (size_t i = 0; i < kLanes; ++i) {
    error.abs_error += static_cast<double>(errors.size[i]);
    error.squared_error += static_cast<double>(errors.squares[i]);
    error.squared += static_cast<double>(errors.whole[i]);
  }
  for (size_t i = 0; i < sub; i += kLanes) V::transpose16(lanes + i * kLanes, kLanes, codes + i, sub);
  uint16_t d[kLanes], m[kLanes];
  V::store_f16(d, V::load(fit.d.lane)), V::store_f16(m, V::load(fit.m.lane));
  for (size_t first = 0; first < kLanes; first += subs, ++blocks) {
    BlockParts& parts = *blocks;
    for (size_t i = 0; i < type.weights; ++i)
      parts.codes[i] = static_cast<uint8_t>(codes[first * sub + i] ^ (bytes ? 128 : 0));
    for (size_t i = 0; i < subs; ++i) {
      parts.metas[i] = static_cast<int>(fit.whole[first + i]);
      parts.metas[subs + i] = static_cast<int>(fit.least[first + i]);
    }
    parts.d = d[first], parts.m = m[first];
  }
}

}  // namespace hqq::kernels
