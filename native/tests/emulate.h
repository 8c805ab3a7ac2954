#pragma once

namespace hqq::test {

// While one is alive, vpdpbusd of AVX-VNNI works on processors with AVX2 that refuse it: the kernels are run as they
// were compiled, and only this instruction is carried out by software. Slow: a signal for each.
class VnniEmulation {
 public:
  VnniEmulation();
  ~VnniEmulation();
  VnniEmulation(const VnniEmulation&) = delete;
  VnniEmulation& operator=(const VnniEmulation&) = delete;

  // Whether the operating system hands over ymm registers with a signal: Linux does, emulators of programs may not.
  static bool possible();
};

}  // namespace hqq::test
