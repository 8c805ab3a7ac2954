#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "../core/formats.h"
#include "../core/types.h"
#include "napi.h"
#include "typed_array.h"

namespace hqq::addon {

// A typed array as the core sees it.
template <class T>
struct Span {
  T* data;
  size_t length;
};

// A region of more threads is a mistake, and exhausts the process.
inline constexpr uint32_t kMaxThreads = 256;

// Reads the named fields of an operation's arguments. lib/ has validated their meaning; this checks what memory safety
// rests on (type, length, range), so that a wrong call is a TypeError or a RangeError and never a wild read.
class Args {
 public:
  explicit Args(const Napi::Object& fields) : env_(fields.Env()), fields_(fields) {}

  bool flag(const char* name) const {
    const Napi::Value value = fields_.Get(name);
    if (!value.IsBoolean()) throw type_error(name, "a boolean", value);
    return value.As<Napi::Boolean>().Value();
  }

  double number(const char* name) const {
    const Napi::Value value = fields_.Get(name);
    if (!value.IsNumber()) throw type_error(name, "a number", value);
    return value.As<Napi::Number>().DoubleValue();
  }

  // A whole number in [low, high]. `high` is at most kMaxDimension, so a product of two cannot overflow 64 bits.
  size_t integer(const char* name, uint32_t low, uint32_t high) const {
    const double value = number(name);
    // Written so that NaN fails; the cast below is defined only once the range is known.
    if (!(value >= low && value <= high) || value != static_cast<double>(static_cast<uint32_t>(value))) {
      throw range_error(std::string("Expected ") + name + " to be an integer in [" + std::to_string(low) + ", " +
                        std::to_string(high) + "].");
    }
    return static_cast<size_t>(value);
  }

  // Rows, columns, steps.
  size_t dimension(const char* name) const { return integer(name, 1, kMaxDimension); }
  Format format(const char* name) const { return static_cast<Format>(integer(name, 0, uint32_t{kFormatCount} - 1)); }
  DType dtype(const char* name) const { return static_cast<DType>(integer(name, 0, kDTypes - 1)); }
  int threads() const { return static_cast<int>(integer("threads", 1, kMaxThreads)); }

  // Elements of an array of these dimensions.
  uint64_t product(std::initializer_list<uint64_t> dimensions) const {
    uint64_t elements = 1;
    for (const uint64_t size : dimensions) {
      if (elements > std::numeric_limits<uint64_t>::max() / size)
        throw range_error("Expected arrays that fit in memory.");
      elements *= size;
    }
    return elements;
  }

  // A typed array of any length.
  template <class T>
  Span<T> array(const char* name) {
    const TypedArray array = read_array(name, array_type_of<T>());
    return {static_cast<T*>(array.data), array.length};
  }

  // A typed array that is read on the spot, and never again.
  template <class T>
  Span<const T> numbers(const char* name) const {
    const TypedArray array = find_array(name, array_type_of<T>());
    return {static_cast<const T*>(array.data), array.length};
  }

  // A typed array of exactly `length` elements.
  template <class T>
  T* array(const char* name, uint64_t length) {
    return static_cast<T*>(read_array(name, array_type_of<T>(), length).data);
  }

  // Weights: Float32Array, or Uint16Array of raw bits.
  Span<void> floats(const char* name, DType dtype) {
    const TypedArray array = read_array(name, dtype == DType::f32 ? napi_float32_array : napi_uint16_array);
    return {array.data, array.length};
  }
  void* floats(const char* name, DType dtype, uint64_t length) {
    return read_array(name, dtype == DType::f32 ? napi_float32_array : napi_uint16_array, length).data;
  }

  // Packed codes: Uint8Array, or Int32Array for formats of 32-bit words.
  void* words(const char* name, Format format, uint64_t length) {
    return read_array(name, row_of(format).word_bytes == 1 ? napi_uint8_array : napi_int32_array, length).data;
  }

  // Keys or values of a cache: Float32Array, Uint16Array of raw bits, or Uint8Array.
  void* cached(const char* name, CacheType type, uint64_t length) {
    constexpr napi_typedarray_type kArrays[] = {napi_float32_array, napi_uint16_array, napi_uint8_array};
    static_assert(std::size(kArrays) == kCacheTypes);
    return read_array(name, kArrays[static_cast<size_t>(type)], length).data;
  }

  // Calls read() for each object of a list, whose fields it then reads.
  template <class Read>
  void each(const char* name, uint32_t most, const Read& read) {
    const Napi::Value value = fields_.Get(name);
    if (!value.IsArray()) throw type_error(name, "a list", value);
    const auto list = value.As<Napi::Array>();
    const uint32_t length = list.Length();
    if (length < 1 || length > most) {
      throw range_error(std::string("Expected ") + name + " to have 1 to " + std::to_string(most) + " entries.");
    }
    const Napi::Object outer = fields_;
    for (uint32_t i = 0; i < length; ++i) {
      const Napi::Value entry = list.Get(i);
      if (!entry.IsObject()) throw type_error(name, "a list of objects", entry);
      fields_ = entry.As<Napi::Object>();
      read();
    }
    fields_ = outer;
  }

  // Calls read() with the fields of the object called `name`.
  template <class Read>
  void within(const char* name, const Read& read) {
    const Napi::Value value = fields_.Get(name);
    if (!value.IsObject()) throw type_error(name, "an object", value);
    const Napi::Object outer = std::exchange(fields_, value.As<Napi::Object>());
    read();
    fields_ = outer;
  }

  // Text; empty where there is none.
  std::string text(const char* name) const {
    const Napi::Value value = fields_.Get(name);
    return value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  }

  // A typed array of `length` elements, or an empty one: nullptr.
  template <class T>
  T* optional_array(const char* name, uint64_t length) {
    const TypedArray array = find_array(name, array_type_of<T>());
    if (array.length == 0) return nullptr;
    if (array.length != length)
      throw range_error(std::string("Expected ") + name + " to be empty or to have " + std::to_string(length) +
                        " elements.");
    arrays_.push_back(array);
    return static_cast<T*>(array.data);
  }
  const float* optional_floats(const char* name, uint64_t length) { return optional_array<float>(name, length); }

  [[nodiscard]] Napi::RangeError range_error(const std::string& message) const {
    return Napi::RangeError::New(env_, message);
  }
  [[nodiscard]] Napi::TypeError type_error(const std::string& message) const {
    return Napi::TypeError::New(env_, message);
  }

  // Whether a field that may be left out is there.
  bool has(const char* name) const { return !fields_.Get(name).IsUndefined(); }

  // An object; what it is, is for the caller to check.
  Napi::Object object(const char* name) const {
    const Napi::Value value = fields_.Get(name);
    if (!value.IsObject()) throw type_error(name, "an object", value);
    return value.As<Napi::Object>();
  }

  // Where an array's elements are.
  struct Memory {
    void* data;
    size_t length;
    bool operator==(const Memory&) const = default;
  };

  // Counts arrays among the arguments that other Args have read: `values`, whose elements were at `memory`.
  void add_read(const Napi::Array& values, const std::vector<Memory>& memory) {
    const auto is_same = [&memory](const Other& other) { return other.memory == &memory; };
    if (std::none_of(others_.begin(), others_.end(), is_same)) others_.push_back({values, &memory});
  }
  bool has_added() const { return !others_.empty(); }

  // For who keeps the arrays for long: of those in one buffer, the one that ends last. While it has its memory, a
  // buffer that may be taken away or shrink is as long as all of them need, and it keeps the buffer alive for them.
  void keep_last_of_each_buffer() {
    const auto end_of = [](const TypedArray& array) { return reinterpret_cast<uintptr_t>(array.data) + array.bytes(); };
    const auto is_before = [&](const TypedArray& a, const TypedArray& b) {
      return std::pair(a.buffer, end_of(a)) < std::pair(b.buffer, end_of(b));
    };
    std::erase_if(arrays_, [](const TypedArray& array) { return array.length == 0; });  // nothing of them is read
    std::sort(arrays_.begin(), arrays_.end(), is_before);
    const auto is_same = [](const TypedArray& a, const TypedArray& b) { return a.buffer == b.buffer; };
    arrays_.erase(arrays_.begin(), std::unique(arrays_.rbegin(), arrays_.rend(), is_same).base());
  }

  // To be called last: a getter among the fields is code of the user's, and may have detached or shrunk an array after
  // its address was taken.
  void check_unchanged() const {
    for (const TypedArray& array : arrays_) check_memory(array.value, {array.data, array.length});
    for (const auto& [values, memory] : others_)
      for (size_t i = 0; i < memory->size(); ++i) check_memory(values.Get(static_cast<uint32_t>(i)), (*memory)[i]);
  }

  // The arrays that were read, for who runs the operation later to hold, and where these are, save those of `add_read`.
  Napi::Array held() const {
    const Napi::Array list = Napi::Array::New(env_, arrays_.size() + others_.size());
    uint32_t i = 0;
    for (const TypedArray& array : arrays_) list.Set(i++, array.value);
    for (const auto& [values, memory] : others_) list.Set(i++, values);
    return list;
  }
  std::vector<Memory> memory() const {
    std::vector<Memory> list;
    for (const TypedArray& array : arrays_) list.push_back({array.data, array.length});
    return list;
  }

 private:
  static constexpr uint32_t kMaxDimension = std::numeric_limits<uint32_t>::max();

  TypedArray find_array(const char* name, napi_typedarray_type type) const {
    const Napi::Value value = fields_.Get(name);
    if (!value.IsTypedArray()) throw type_error(name, "a typed array", value);
    const TypedArray array = inspect(env_, value);
    if (array.type != type) throw type_error(name, array_name_of(type), value);
    return array;
  }

  TypedArray read_array(const char* name, napi_typedarray_type type) {
    const TypedArray array = find_array(name, type);
    arrays_.push_back(array);
    return array;
  }

  TypedArray read_array(const char* name, napi_typedarray_type type, uint64_t length) {
    const TypedArray array = read_array(name, type);
    if (array.length != length) {
      throw range_error(std::string("Expected ") + name + " to have " + std::to_string(length) + " elements, got " +
                        std::to_string(array.length) + ".");
    }
    return array;
  }

  void check_memory(const Napi::Value& value, const Memory& memory) const {
    const TypedArray now = inspect(env_, value);
    if (Memory{now.data, now.length} == memory) return;
    throw Napi::TypeError::New(env_, "Expected the arguments to stay as they are while they are read.");
  }

  Napi::TypeError type_error(const char* name, const std::string& expected, const Napi::Value& got) const {
    std::string kind;
    if (got.IsTypedArray()) {
      kind = array_name_of(inspect(env_, got).type);
    } else {
      kind = got.IsNull() ? "null" : got.IsUndefined() ? "undefined" : got.IsNumber() ? "a number" : "another type";
    }
    return Napi::TypeError::New(env_, std::string("Expected ") + name + " to be " + expected + ", got " + kind + ".");
  }

  Napi::Env env_;
  Napi::Object fields_;
  std::vector<TypedArray> arrays_;
  struct Other {
    Napi::Array values;
    const std::vector<Memory>* memory;
  };
  std::vector<Other> others_;
};

}  // namespace hqq::addon
