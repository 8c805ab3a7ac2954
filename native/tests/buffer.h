#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "../core/types.h"
#include "check.h"

namespace hqq::test {

// What a buffer's elements are.
enum class Element { bytes, words, f16, bf16, f32, f64 };

inline Element element_of(DType dtype) {
  constexpr Element kElements[] = {Element::f32, Element::f16, Element::bf16};
  return kElements[static_cast<size_t>(dtype)];
}

inline size_t size_of(Element element) {
  constexpr size_t kSizes[] = {1, 4, 2, 2, 4, 8};
  return kSizes[static_cast<size_t>(element)];
}

// An output with guards on both sides, at an address that suits its elements and no vector.
class Buffer {
 public:
  Buffer(const char* name, Element element, size_t count, uint8_t fill)
      : name_(name), element_(element), fill_(fill), bytes_(count * size_of(element)) {
    memory_.resize(bytes_ + 2 * kGuard + size_of(element), std::byte{fill});
  }

  template <class T = void>
  T* at() {
    return static_cast<T*>(static_cast<void*>(memory_.data() + begin()));
  }
  const std::byte* data() const { return memory_.data() + begin(); }
  size_t size() const { return bytes_; }
  const char* name() const { return name_; }

  bool untouched() const { return is_fill(0, memory_.size()); }
  bool guards_hold() const { return is_fill(0, begin()) && is_fill(begin() + bytes_, memory_.size()); }

  // Bits of a NaN that an operation makes are the machine's own (x86 sets the sign, ARM does not): one pattern for all.
  void unify_nans() {
    for (size_t i = 0; i < bytes_; i += size_of(element_)) {
      std::byte* p = memory_.data() + begin() + i;
      if (element_ == Element::f32) unify<float>(p, 0x7fc00000u);
      if (element_ == Element::f64) unify<double>(p, 0x7ff8000000000000u);
      if (element_ == Element::f16) unify_half(p, 0x7c00);
      if (element_ == Element::bf16) unify_half(p, 0x7f80);
    }
  }

 private:
  static constexpr size_t kGuard = 128;

  size_t begin() const { return kGuard + size_of(element_); }
  bool is_fill(size_t from, size_t to) const {
    for (size_t i = from; i < to; ++i)
      if (memory_[i] != std::byte{fill_}) return false;
    return true;
  }
  template <class T, class Bits>
  static void unify(std::byte* p, Bits nan) {
    T value;
    std::memcpy(&value, p, sizeof(T));
    if (std::isnan(value)) std::memcpy(p, &nan, sizeof(T));
  }
  static void unify_half(std::byte* p, uint16_t infinity) {
    uint16_t bits;
    std::memcpy(&bits, p, sizeof(bits));
    if ((bits & 0x7fff) <= infinity) return;
    bits = static_cast<uint16_t>(infinity | 1);
    std::memcpy(p, &bits, sizeof(bits));
  }

  const char* name_;
  Element element_;
  uint8_t fill_;
  size_t bytes_;
  std::vector<std::byte> memory_;
};

using Buffers = std::vector<Buffer>;

// The same bytes in the same outputs, and nothing written beside them.
inline bool expect_same(const Buffers& got, const Buffers& want, const std::string& context) {
  bool same = true;
  for (size_t b = 0; b < want.size(); ++b) {
    same &= check(got[b].guards_hold(), context + ": writes beside " + got[b].name());
    if (got[b].size() == want[b].size() && std::memcmp(got[b].data(), want[b].data(), want[b].size()) == 0) continue;
    size_t at = 0;
    while (at < want[b].size() && got[b].data()[at] == want[b].data()[at]) ++at;
    same = check(false, context + text(": %s differs from byte %zu of %zu on", want[b].name(), at, want[b].size()));
  }
  return same;
}

}  // namespace hqq::test
