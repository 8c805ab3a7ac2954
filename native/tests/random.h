#pragma once
#include <cstddef>
#include <cstdint>
#include <iterator>

namespace hqq::test {

// splitmix64: the same numbers on every machine, which the library's distributions are not.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  size_t below(size_t count) { return static_cast<size_t>((next() >> 32) * count >> 32); }
  bool chance(int percent) { return below(100) < static_cast<size_t>(percent); }
  // [-1, 1)
  float uniform() { return static_cast<float>(static_cast<int32_t>(next() >> 40) - (1 << 23)) * 0x1p-23f; }
  // About normal, of unit variance: twelve uniform numbers.
  float normal() {
    float sum = 0;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum * 0.5f;
  }
  template <class List>
  auto pick(const List& list) {
    return std::data(list)[below(std::size(list))];
  }

 private:
  uint64_t state_;
};

// Straddle every width of vectors.
inline constexpr size_t kOddSizes[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128};

}  // namespace hqq::test
