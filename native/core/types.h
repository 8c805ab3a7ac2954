#pragma once
#include <cstddef>
#include <cstdint>

namespace hqq {

// Element types of weights; float16 and bfloat16 travel as raw bits.
enum class DType : uint8_t { f32, f16, bf16 };

struct DTypeRow {
  const char* name;
  size_t bytes;
};
inline constexpr DTypeRow kDTypeRows[] = {{"float32", 4}, {"float16", 2}, {"bfloat16", 2}};
inline constexpr int kDTypes = sizeof(kDTypeRows) / sizeof(kDTypeRows[0]);

// What a cache of attention holds keys and values as: bytes are codes, as many levels above the least of a group.
enum class CacheType : uint8_t { f32, f16, u8 };
inline constexpr DTypeRow kCacheTypeRows[] = {{"float32", 4}, {"float16", 2}, {"int8", 1}};
inline constexpr int kCacheTypes = sizeof(kCacheTypeRows) / sizeof(kCacheTypeRows[0]);

// Elements of a head's key, or value, that have a scale and a least element of their own where they are bytes.
inline constexpr size_t kCacheGroup = 64;
inline constexpr size_t cache_groups(CacheType type, size_t head_dim) {
  return type == CacheType::u8 ? (head_dim + kCacheGroup - 1) / kCacheGroup : 0;
}

inline constexpr size_t bytes_of(CacheType type) { return kCacheTypeRows[static_cast<size_t>(type)].bytes; }
inline constexpr size_t bytes_of(DType dtype) { return kDTypeRows[static_cast<size_t>(dtype)].bytes; }

}  // namespace hqq
