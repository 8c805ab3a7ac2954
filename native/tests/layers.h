#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "../core/layers.h"
#include "cases.h"

// Layers of language models, whose bits are each instruction set's own: all of them within a bound of float64 that is
// derived from the number of roundings, the same bits for any number of threads, and for a row alone as for a row among
// others.
//
// A case gives `rows`, outputs(fill), run_rows(context, first, count, outputs), add_errors(outputs, errors) and
// describe().
namespace hqq::test {

inline constexpr double kUnit = 0x1p-24;    // relative, of one rounding to float32
inline constexpr double kExpError = 2e-7;   // relative: simd/math.h
inline constexpr double kLeast = 0x1p-120;  // what gradual underflow may lose of sums like these

// Roundings on the way of a term into a sum of `count` products: its own, a lane's additions, the tree, and those after
// it.
inline double roundings(size_t count) { return std::ceil(static_cast<double>(count) / 16) + 8; }

// Floats in memory of just their size, at an address that suits no vector.
class Floats {
 public:
  Floats() : memory_(1) {}
  Floats(Random& random, size_t count, float size) : memory_(count + 1) {
    for (size_t i = 1; i <= count; ++i) memory_[i] = random.normal() * size;
  }
  const float* data() const { return memory_.data() + 1; }
  float* data() { return memory_.data() + 1; }
  float operator[](size_t i) const { return memory_[i + 1]; }
  size_t size() const { return memory_.size() - 1; }

 private:
  std::vector<float> memory_;
};

inline float element(const Buffer& buffer, size_t i) {
  float value;
  std::memcpy(&value, buffer.data() + i * sizeof(float), sizeof(float));
  return value;
}

inline double wide(float x) { return static_cast<double>(x); }

inline Buffers one_output(size_t count, uint8_t fill) {
  Buffers outputs;
  outputs.emplace_back("out", Element::f32, count, fill);
  return outputs;
}

// The largest error of `got`, in units of what is allowed; what is no number is beyond all bounds.
class Errors {
 public:
  void add(float got, double want, double bound) {
    const double error = std::fabs(wide(got) - want) / (bound + kLeast);
    if (!(error <= worst_)) worst_ = std::isnan(error) ? INFINITY : error;
  }
  void expect(const std::string& context) const {
    check(worst_ <= 1, context + text(": %g of the allowed error", worst_));
  }

 private:
  double worst_ = 0;
};

template <class Case>
Buffers run_layer(const Case& c, const core::Context& context, size_t first, size_t count, uint8_t fill,
                  const std::string& name) {
  Buffers outputs = c.outputs(fill);
  check(c.run_rows(context, first, count, outputs) == core::Status::ok, name + ": is not done");
  return outputs;
}

template <class Case>
void compare_layer(const Case& c, const kernels::KernelTable& kernels, const std::string& name) {
  const std::atomic<bool> never{false};
  const Buffers one = run_layer(c, {kernels, 1, never}, 0, c.rows, 0xa5, name);
  for (const int threads : {2, 7})
    expect_same(run_layer(c, {kernels, threads, never}, 0, c.rows, 0x5a, name), one,
                name + text(", %d threads", threads));
  Errors errors;
  c.add_errors(one, errors);
  errors.expect(name);
  const size_t bytes = one[0].size() / c.rows;
  for (const size_t row : {size_t{0}, c.rows - 1}) {
    const Buffers alone = run_layer(c, {kernels, 1, never}, row, 1, 0x5a, name);
    check(std::memcmp(alone[0].data(), one[0].data() + row * bytes, bytes) == 0, name + ": a row alone");
  }
}

template <class Case>
void compare_layers(const Options& options, const kernels::KernelTable& kernels, int count) {
  report.begin(text("%s: %s as float64 does", kernels.isa, Case::kName));
  for (int i = 0; i < count; ++i) {
    Random random(options.seed * 1000037 + static_cast<uint64_t>(i));
    const Case c = Case::random(random);
    compare_layer(c, kernels, text("%s %s case %d: ", kernels.isa, Case::kName, i) + c.describe());
  }
}

}  // namespace hqq::test
