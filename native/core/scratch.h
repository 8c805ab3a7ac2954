#pragma once
#include <cstddef>
#include <memory>
#include <new>

#include "pages.h"

namespace hqq::core {

// Working memory of an operation: one part per thread, each cut into arrays that begin on a cache line. Allocated
// before the threads start, because nothing may throw on them.
class Scratch {
 public:
  // Offset of an array of `count` elements in every part. Ask for all of them before `allocate`.
  template <class T>
  size_t reserve(size_t count) {
    const size_t offset = bytes_;
    bytes_ += (count * sizeof(T) + kLine - 1) / kLine * kLine;
    return offset;
  }
  void allocate(int threads) {
    size_t space = bytes_ * static_cast<size_t>(threads) + 2 * kLine;
    whole_ = ::operator new(space);
    void* begin = whole_;
    memory_ = static_cast<std::byte*>(std::align(kLine, space - kLine, begin, space));
  }
  // For much of it that is read again and again.
  void prefer_large_pages() const { core::prefer_large_pages(memory_, bytes_); }
  template <class T>
  T* at(size_t offset, int slot) const {
    return reinterpret_cast<T*>(memory_ + static_cast<size_t>(slot) * bytes_ + offset);
  }

  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { ::operator delete(whole_); }

 private:
  static constexpr size_t kLine = 64;
  // Aligned here: glibc (2.36) cuts what is to be aligned out of more, finds no place for it where it lay before, and
  // so keeps four times as much as is ever used at once.
  void* whole_ = nullptr;
  std::byte* memory_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace hqq::core
