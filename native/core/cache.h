#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "layers.h"

// Caches of attention: where a head's keys and values are, and how rows are written there.
namespace hqq::core {

using kernels::kLanes;

// Keys and values of one head in one segment.
struct HeadCache {
  std::byte *keys, *values;
  float *key_meta, *value_meta;

  HeadCache(const Attention& op, const CacheSegment& segment, size_t head) {
    const size_t first = head * segment.capacity, meta = first * cache_groups(op.type, op.head_dim) * 2;
    const size_t bytes = first * op.head_dim * bytes_of(op.type);
    keys = static_cast<std::byte*>(segment.keys) + bytes, values = static_cast<std::byte*>(segment.values) + bytes;
    key_meta = segment.key_meta == nullptr ? nullptr : segment.key_meta + meta;
    value_meta = segment.value_meta == nullptr ? nullptr : segment.value_meta + meta;
  }
};

// codes = round((x - least) / scale), half to even, with scale = (most - least) / 255     count <= kCacheGroup
//
// Each operation is rounded to float32, so that JavaScript has the same bits. What is not finite, or too far apart,
// makes its group NaN; where nothing is far enough apart to be told, all is the least.
inline void encode_cache_group(const float* x, size_t count, uint8_t* codes, float& scale, float& least) {
  float low = x[0], high = x[0];
  for (size_t i = 0; i < count; ++i) low = std::min(low, x[i]), high = std::max(high, x[i]);
  const float width = high - low, step = width / 255.0f;
  bool finite = std::isfinite(width);
  for (size_t i = 0; i < count; ++i) finite &= !std::isnan(x[i]);
  if (!finite || step < std::numeric_limits<float>::min()) {
    std::fill_n(codes, count, uint8_t{0});
    scale = 0.0f, least = finite ? low : std::numeric_limits<float>::quiet_NaN();
    return;
  }
  // Adding 2^23 leaves a whole number, rounded by the addition itself.
  constexpr float kWhole = 8388608.0f;
  const float inverse = 1.0f / step;
  for (size_t i = 0; i < count; ++i) {
    const float level = (x[i] - low) * inverse + kWhole;
    codes[i] = static_cast<uint8_t>(std::min(level - kWhole, 255.0f));
  }
  scale = step, least = low;
}

// Writes a head's key, or value, whose elements are `stride` apart in the cache; so are its scales and least elements.
inline void write_row(const Attention& op, const kernels::KernelTable& kernels, const float* x, std::byte* to,
                      float* meta, size_t stride) {
  const auto scatter = [stride]<class T>(const T* from, size_t count, T* cache) {
    if (stride == 1)
      std::copy_n(from, count, cache);
    else
      for (size_t d = 0; d < count; ++d) cache[d * stride] = from[d];
  };
  if (op.type == CacheType::f32) {
    scatter(x, op.head_dim, reinterpret_cast<float*>(to));
    return;
  }
  for (size_t d = 0; d < op.head_dim; d += kCacheGroup) {
    const size_t count = std::min(kCacheGroup, op.head_dim - d);
    if (op.type == CacheType::f16) {
      // Past the largest of float16 it is the largest.
      constexpr float kMost = 65504.0f;
      float clipped[kCacheGroup];
      uint16_t halves[kCacheGroup];
      for (size_t i = 0; i < count; ++i) clipped[i] = std::clamp(x[d + i], -kMost, kMost);
      kernels.narrow[static_cast<size_t>(DType::f16)](clipped, count, halves);
      scatter(halves, count, reinterpret_cast<uint16_t*>(to) + d * stride);
    } else {
      uint8_t codes[kCacheGroup];
      encode_cache_group(x + d, count, codes, meta[0], meta[stride]);
      scatter(codes, count, reinterpret_cast<uint8_t*>(to) + d * stride);
      meta += 2 * stride;
    }
  }
}

// Writes a head's key and value to their places, `position` being that in the segment.
inline void append(const Attention& op, const kernels::KernelTable& kernels, const CacheSegment& segment, size_t head,
                   size_t position, const float* k, const float* v) {
  const HeadCache cache(op, segment, head);
  const size_t bytes = bytes_of(op.type), meta = 2 * cache_groups(op.type, op.head_dim);
  const size_t strip = position / kLanes * kLanes, lane = position % kLanes;
  write_row(op, kernels, k, cache.keys + (strip * op.head_dim + lane) * bytes,
            cache.key_meta == nullptr ? nullptr : cache.key_meta + strip * meta + lane, kLanes);
  write_row(op, kernels, v, cache.values + position * op.head_dim * bytes,
            cache.value_meta == nullptr ? nullptr : cache.value_meta + position * meta, 1);
}

}  // namespace hqq::core
