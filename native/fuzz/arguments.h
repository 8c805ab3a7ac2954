#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "../addon/napi.h"

// Arguments of operations, made of a fuzzer's input.
namespace hqq::fuzz {

// The input, byte by byte; zeros after its end, which stand for what is most likely to get past the checks.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  uint8_t byte() { return at_ < size_ ? data_[at_++] : 0; }
  size_t below(size_t count) { return byte() % count; }
  // Random bits for arrays, which would use up the input.
  uint64_t next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u + size_;
    return state_ >> 16;
  }
  void stir() { state_ ^= uint64_t{byte()} << 32; }

 private:
  const uint8_t* data_;
  size_t size_, at_ = 0;
  uint64_t state_ = 0x9e3779b97f4a7c15u;
};

extern Input* input;  // of this run

// The field called `name` of any operation; what it holds is the input's.
std::unique_ptr<Napi::Stored> make_value(std::string_view name);

// Does what a refusal says, to one field of `arguments`; false where that is not understood.
bool repair(Napi::Stored& arguments, std::string_view message);

}  // namespace hqq::fuzz
