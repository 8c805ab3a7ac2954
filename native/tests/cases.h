#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "../core/operations.h"
#include "buffer.h"
#include "random.h"

// Cases of the core's operations: what goes in, how to run it, and how to say what it is. Random ones for comparing
// instruction sets, fixed ones (digest.cc) for comparing machines.
namespace hqq::test {

// Of calls that nobody cancels.
inline const std::atomic<bool> kNever{false};

// `count` elements of `dtype`, in memory of just that size: a sanitizer sees a read past either end.
struct Elements {
  DType dtype = DType::f32;
  size_t count = 0;
  std::vector<std::byte> bytes;

  Elements() = default;
  Elements(DType type, size_t length) : dtype(type), count(length), bytes(length * bytes_of(type)) {}
  Elements(DType type, const std::vector<float>& values);  // rounded to the type
  const float* floats() const { return reinterpret_cast<const float*>(bytes.data()); }
  // Puts `bits` (of the type) at `index`.
  void set(size_t index, uint32_t bits);
};

// The format for codes of so many bits.
constexpr Format format_of(int bits) {
  size_t i = 0;
  while (kFormats[i].bits != bits) ++i;
  return kAllFormats[i];
}

// The codes that a format can hold, and where they go.
struct Grid {
  size_t rows = 1, cols = 1, step = 1;
  Format format = format_of(8);

  static Grid random(Random& random);
  size_t weights() const { return rows * cols; }
  size_t words() const { return step * cols; }
  size_t groups(int axis) const { return axis == 1 ? rows : cols; }
  Element word() const { return row_of(format).word_bytes == 1 ? Element::bytes : Element::words; }
  uint32_t mask() const { return (1u << row_of(format).bits) - 1; }
  std::string describe() const;
};

struct QuantizeCase {
  static constexpr const char* kName = "quantize";
  Grid grid;
  Elements weights;
  int axis = 1;
  uint32_t max_code = 1;
  int iterations = 0;
  double beta = 10, kappa = 1;
  double threshold = -1;  // of all iterations; negative: what shrinkage surely turns into zero
  double lp_norm = 0.7;
  bool round_zero = false, reference_guards = false;
  size_t block = 1;
  DType meta_dtype = DType::f32, scale_dtype = DType::f32;
  const char* solver = nullptr;                            // null: hqq, or minmax where there are no iterations
  kernels::ZeroKind fixed_zero = kernels::ZeroKind::real;  // of others: integer or symmetric, in place of round_zero's
  Elements importance;                                     // of float32; empty: none
  std::vector<int32_t> starts;
  size_t stride = 1;
  std::vector<float> scales, zeros;  // given, to be encoded with; empty: to be found

  static QuantizeCase random(Random& random);
  Buffers outputs(uint8_t fill) const;
  core::Status run(const core::Context& context, Buffers& outputs) const;
  std::string describe() const;
};

struct PackCase {
  static constexpr const char* kName = "pack";
  Grid grid;
  std::vector<uint8_t> codes;

  static PackCase random(Random& random);
  Buffers outputs(uint8_t fill) const;
  core::Status run(const core::Context& context, Buffers& outputs) const;
  std::string describe() const { return grid.describe(); }
};

struct UnpackCase {
  static constexpr const char* kName = "unpack";
  Grid grid;
  std::vector<std::byte> packed;

  static UnpackCase random(Random& random);
  Buffers outputs(uint8_t fill) const;
  core::Status run(const core::Context& context, Buffers& outputs) const;
  std::string describe() const { return grid.describe(); }
};

struct ExtremesCase {
  static constexpr const char* kName = "extremes";
  size_t rows = 0, cols = 0;
  int axis = 1;
  Elements weights;

  static ExtremesCase random(Random& random);
  Buffers outputs(uint8_t fill) const;
  core::Status run(const core::Context& context, Buffers& outputs) const;
  std::string describe() const;
};

struct DequantizeCase {
  static constexpr const char* kName = "dequantize";
  Grid grid;
  std::vector<std::byte> packed;
  int axis = 1;
  Elements scale, zero;
  DType dtype = DType::f32;
  bool round_each = false;

  static DequantizeCase random(Random& random);
  Buffers outputs(uint8_t fill) const;
  core::Status run(const core::Context& context, Buffers& outputs) const;
  std::string describe() const;
};

struct DistanceCase {
  static constexpr const char* kName = "distance";
  Elements a, b;

  static DistanceCase random(Random& random);
  Buffers outputs(uint8_t fill) const;
  core::Status run(const core::Context& context, Buffers& outputs) const;
  std::string describe() const;
};

struct ConvertCase {
  static constexpr const char* kName = "convert";
  Elements from;
  DType dtype = DType::f32;

  static ConvertCase random(Random& random);
  Buffers outputs(uint8_t fill) const;
  core::Status run(const core::Context& context, Buffers& outputs) const;
  std::string describe() const;
};

// Parameters of solver joint, with some starts: solve/joint.h.
std::vector<float> joint_parameters(double lp_norm, double beta, double kappa, int iterations,
                                    kernels::ZeroKind zero_kind);

// Parameters of solver hqq: solve/hqq.h.
std::vector<float> hqq_parameters(double lp_norm, double beta, double kappa, double threshold, int iterations);

// The place of a solver in the list.
size_t solver_named(std::string_view name);

// Weights of every kind that has hurt somebody: ordinary ones, constant groups, zeros of both signs, ties, outliers,
// subnormal, tiny and huge ones.
std::vector<float> random_weights(Random& random, size_t count, DType dtype);

}  // namespace hqq::test
