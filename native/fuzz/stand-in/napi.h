#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// As much of node-addon-api as native/addon/args.h and ops.h use, without Node: JavaScript values made of plain memory,
// so that a fuzzer calls the addon's own argument checks.

enum napi_status { napi_ok, napi_invalid_arg };
enum napi_typedarray_type {
  napi_int8_array,
  napi_uint8_array,
  napi_uint8_clamped_array,
  napi_int16_array,
  napi_uint16_array,
  napi_int32_array,
  napi_uint32_array,
  napi_float32_array,
  napi_float64_array,
  napi_bigint64_array,
  napi_biguint64_array
};

namespace Napi {

enum class Kind { undefined, null, boolean, number, string, typed_array, list, object };

inline size_t bytes_of(napi_typedarray_type type) {
  constexpr size_t kBytes[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};
  return kBytes[type];
}

// What a variable of JavaScript holds.
struct Stored {
  Kind kind = Kind::undefined;
  bool flag = false;
  double number = 0;
  std::string text;
  napi_typedarray_type type = napi_uint8_array;
  std::unique_ptr<std::byte[]> bytes;  // of an array: memory of just its size, so that a sanitizer sees what is past it
  size_t length = 0;
  std::vector<std::pair<std::string, std::unique_ptr<Stored>>> fields;  // of an object
  std::vector<std::unique_ptr<Stored>> entries;                         // of a list

  void become_array(napi_typedarray_type of_type, size_t of_length) {
    kind = Kind::typed_array, type = of_type, length = of_length;
    bytes = std::make_unique<std::byte[]>(size());
  }
  size_t size() const { return length * bytes_of(type); }
  Stored* find(std::string_view name) const {
    for (const auto& [key, value] : fields)
      if (key == name) return value.get();
    return nullptr;
  }
};

// Makes the value of a field when it is read for the first time: the fuzzer's part.
std::unique_ptr<Stored> make_field(std::string_view name);

struct Env {};

class Value {
 public:
  Value() = default;
  explicit Value(Stored* stored) : stored_(stored) {}
  Napi::Env Env() const { return {}; }
  bool IsUndefined() const { return is(Kind::undefined); }
  bool IsNull() const { return is(Kind::null); }
  bool IsBoolean() const { return is(Kind::boolean); }
  bool IsNumber() const { return is(Kind::number); }
  bool IsString() const { return is(Kind::string); }
  bool IsTypedArray() const { return is(Kind::typed_array); }
  bool IsArray() const { return is(Kind::list); }
  bool IsObject() const { return is(Kind::object) || is(Kind::list) || is(Kind::typed_array); }
  template <class T>
  T As() const {
    return T(stored_);
  }
  Stored* stored() const { return stored_; }

 private:
  bool is(Kind kind) const { return (stored_ == nullptr ? Kind::undefined : stored_->kind) == kind; }
  Stored* stored_ = nullptr;
};

struct Boolean : Value {
  using Value::Value;
  bool Value() const { return stored()->flag; }
};
struct Number : Value {
  using Value::Value;
  double DoubleValue() const { return stored()->number; }
};
struct String : Value {
  using Value::Value;
  static std::string New(Napi::Env, std::string text) { return text; }
  std::string Utf8Value() const { return stored()->text; }
};
struct Object : Value {
  using Value::Value;
  Napi::Value Get(const char* name) const {
    Stored* found = stored()->find(name);
    if (found == nullptr) found = stored()->fields.emplace_back(name, make_field(name)).second.get();
    return Napi::Value(found);
  }
};
struct Array : Value {
  using Value::Value;
  static Array New(Napi::Env, size_t) { return {}; }
  void Set(uint32_t, const Napi::Value&) const {}
  uint32_t Length() const { return static_cast<uint32_t>(stored()->entries.size()); }
  Napi::Value Get(uint32_t i) const { return Napi::Value(stored()->entries[i].get()); }
};

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
  static Error New(Env, const std::string& message = "") { return Error(message); }
  void Set(const char*, const std::string&) {}
};
struct RangeError : Error {
  using Error::Error;
  static RangeError New(Env, const std::string& message) { return RangeError(message); }
};
struct TypeError : Error {
  using Error::Error;
  static TypeError New(Env, const std::string& message) { return TypeError(message); }
};

}  // namespace Napi

inline napi_status napi_get_typedarray_info(Napi::Env, const Napi::Value& value, napi_typedarray_type* type,
                                            size_t* length, void** data, void*, size_t* offset) {
  const Napi::Stored& array = *value.stored();
  *type = array.type, *length = array.length, *offset = 0;
  *data = array.length == 0 ? nullptr : array.bytes.get();
  return napi_ok;
}
