#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "napi.h"

namespace hqq::addon {

constexpr size_t element_bytes_of(napi_typedarray_type type) {
  switch (type) {
    case napi_int16_array:
    case napi_uint16_array: return 2;
    case napi_int32_array:
    case napi_uint32_array:
    case napi_float32_array: return 4;
    case napi_float64_array:
    case napi_bigint64_array:
    case napi_biguint64_array: return 8;
    default: return 1;
  }
}

// A typed array of JavaScript's, as it was when it was looked at. One that is detached has length 0.
struct TypedArray {
  Napi::Value value;
  napi_typedarray_type type;
  size_t length;
  void* data;
  uintptr_t buffer;  // where its buffer begins
  size_t bytes() const { return length * element_bytes_of(type); }
};

inline TypedArray inspect(Napi::Env env, const Napi::Value& value) {
  TypedArray array{value, napi_int8_array, 0, nullptr, 0};
  size_t offset = 0;
  const napi_status status =
      napi_get_typedarray_info(env, value, &array.type, &array.length, &array.data, nullptr, &offset);
  if (status != napi_ok) throw Napi::Error::New(env);
  array.buffer = reinterpret_cast<uintptr_t>(array.data) - offset;
  return array;
}

template <class T>
constexpr napi_typedarray_type array_type_of() {
  if constexpr (std::is_same_v<T, uint8_t>)
    return napi_uint8_array;
  else if constexpr (std::is_same_v<T, float>)
    return napi_float32_array;
  else if constexpr (std::is_same_v<T, int32_t>)
    return napi_int32_array;
  else {
    static_assert(std::is_same_v<T, double>);
    return napi_float64_array;
  }
}

inline const char* array_name_of(napi_typedarray_type type) {
  switch (type) {
    case napi_uint8_array: return "a Uint8Array";
    case napi_uint16_array: return "a Uint16Array";
    case napi_int32_array: return "an Int32Array";
    case napi_float32_array: return "a Float32Array";
    case napi_float64_array: return "a Float64Array";
    default: return "a typed array of another type";
  }
}

}  // namespace hqq::addon
