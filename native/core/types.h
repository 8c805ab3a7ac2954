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

inline constexpr size_t bytes_of(DType dtype) { return kDTypeRows[static_cast<size_t>(dtype)].bytes; }

}  // namespace hqq
