#pragma once
#include <cstddef>
#include <cstdint>

namespace hqq {

// Element types of weights; float16 and bfloat16 travel as raw bits. DTYPES in lib/matrix/dtype.ts.
enum class DType : uint8_t { f32, f16, bf16 };
inline constexpr int kDTypes = 3;

inline constexpr size_t bytes_of(DType dtype) { return dtype == DType::f32 ? 4 : 2; }

}  // namespace hqq
