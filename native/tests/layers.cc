#include "layers.h"

namespace hqq::test {
namespace {

struct DenseCase {
  static constexpr const char* kName = "denseLinear";
  size_t rows, in, out;
  Floats x, weights, bias;

  static DenseCase random(Random& random) {
    constexpr size_t kRows[] = {1, 1, 2, 3, 4, 5, 8, 13, 97, 131};
    DenseCase c{random.pick(kRows), random.pick(kOddSizes), random.pick(kOddSizes), {}, {}, {}};
    if (random.chance(10)) c.in = 1500 + random.below(600);  // few outputs a unit
    c.x = Floats(random, c.rows * c.in, 1), c.weights = Floats(random, c.out * c.in, 0.1f);
    if (random.chance(50)) c.bias = Floats(random, c.out, 1);
    return c;
  }
  std::string describe() const { return text("%zu rows, %zu to %zu%s", rows, in, out, has_bias() ? ", bias" : ""); }
  bool has_bias() const { return bias.size() == out; }
  Buffers outputs(uint8_t fill) const { return one_output(rows * out, fill); }
  core::Status run_rows(const core::Context& context, size_t first, size_t count, Buffers& outputs) const {
    return core::dense_linear(context, {count, in, out, x.data() + first * in, weights.data(),
                                        has_bias() ? bias.data() : nullptr, outputs[0].at<float>()});
  }
  void add_errors(const Buffers& got, Errors& errors) const {
    for (size_t b = 0; b < rows; ++b)
      for (size_t o = 0; o < out; ++o) {
        double sum = has_bias() ? wide(bias[o]) : 0, terms = std::fabs(sum);
        for (size_t i = 0; i < in; ++i) {
          const double term = wide(x[b * in + i]) * wide(weights[o * in + i]);
          sum += term, terms += std::fabs(term);
        }
        errors.add(element(got[0], b * out + o), sum, kUnit * roundings(in) * terms);
      }
  }
};

struct RmsNormCase {
  static constexpr const char* kName = "rmsNorm";
  size_t rows, cols;
  float epsilon;
  bool in_place;
  Floats x, weight;

  static RmsNormCase random(Random& random) {
    constexpr size_t kRows[] = {1, 2, 3, 9};
    constexpr float kSizes[] = {1e-3f, 1, 1, 300};
    RmsNormCase c{
        random.pick(kRows), random.pick(kOddSizes), random.chance(50) ? 1e-5f : 1e-6f, random.chance(30), {}, {}};
    if (random.chance(10)) c.cols = 2000 + random.below(4000);
    c.x = Floats(random, c.rows * c.cols, random.pick(kSizes)), c.weight = Floats(random, c.cols, 1);
    return c;
  }
  std::string describe() const { return text("%zu x %zu%s", rows, cols, in_place ? ", in place" : ""); }
  Buffers outputs(uint8_t fill) const { return one_output(rows * cols, fill); }
  core::Status run_rows(const core::Context& context, size_t first, size_t count, Buffers& outputs) const {
    const float* from = x.data() + first * cols;
    auto* out = outputs[0].at<float>();
    if (in_place) std::copy_n(from, count * cols, out);
    return core::rms_norm(context, {count, cols, epsilon, in_place ? out : from, weight.data(), out});
  }
  void add_errors(const Buffers& got, Errors& errors) const {
    for (size_t r = 0; r < rows; ++r) {
      double squares = 0;
      for (size_t i = 0; i < cols; ++i) squares += wide(x[r * cols + i]) * wide(x[r * cols + i]);
      const double factor = 1 / std::sqrt(squares / static_cast<double>(cols) + wide(epsilon));
      for (size_t i = 0; i < cols; ++i) {
        const double want = wide(x[r * cols + i]) * factor * wide(weight[i]);
        // A root halves the relative error of what is under it.
        errors.add(element(got[0], r * cols + i), want, kUnit * (roundings(cols) / 2 + 5) * std::fabs(want));
      }
    }
  }
};

struct RopeCase {
  static constexpr const char* kName = "rope";
  size_t rows, heads, half, rest;  // elements that are not turned
  Floats x, cos, sin;

  static RopeCase random(Random& random) {
    constexpr size_t kRows[] = {1, 2, 3, 9};
    RopeCase c{random.pick(kRows),
               1 + random.below(5),
               random.pick(kOddSizes),
               random.chance(70) ? 0 : random.below(40),
               {},
               {},
               {}};
    c.x = Floats(random, c.rows * c.row_size(), 2);
    c.cos = Floats(random, c.rows * c.half, 1), c.sin = Floats(random, c.rows * c.half, 1);
    for (size_t i = 0; i < c.rows * c.half; ++i) {
      const double angle = wide(c.cos[i]) * 100;
      c.cos.data()[i] = static_cast<float>(std::cos(angle)), c.sin.data()[i] = static_cast<float>(std::sin(angle));
    }
    return c;
  }
  size_t head_size() const { return 2 * half + rest; }
  size_t row_size() const { return heads * head_size(); }
  std::string describe() const { return text("%zu rows, %zu heads of %zu + %zu", rows, heads, 2 * half, rest); }
  Buffers outputs(uint8_t fill) const { return one_output(rows * row_size(), fill); }
  core::Status run_rows(const core::Context& context, size_t first, size_t count, Buffers& outputs) const {
    auto* to = outputs[0].at<float>();
    std::copy_n(x.data() + first * row_size(), count * row_size(), to);
    return core::rope(context,
                      {count, heads, head_size(), 2 * half, cos.data() + first * half, sin.data() + first * half, to});
  }
  void add_errors(const Buffers& got, Errors& errors) const {
    for (size_t at = 0; at < rows * row_size(); at += head_size()) {
      for (size_t i = 2 * half; i < head_size(); ++i) errors.add(element(got[0], at + i), wide(x[at + i]), 0);
      for (size_t i = 0; i < half; ++i) {
        const size_t angle = at / row_size() * half + i;
        const double a = wide(x[at + i]), b = wide(x[at + half + i]), c = wide(cos[angle]), s = wide(sin[angle]);
        errors.add(element(got[0], at + i), a * c - b * s, 2 * kUnit * (std::fabs(a * c) + std::fabs(b * s)));
        errors.add(element(got[0], at + half + i), b * c + a * s, 2 * kUnit * (std::fabs(b * c) + std::fabs(a * s)));
      }
    }
  }
};

// A gate with an activation of the form g / (1 + e^-x).
template <bool kGelu>
struct GatedCase {
  static constexpr const char* kName = kGelu ? "geglu" : "swiglu";
  size_t rows, cols;
  int in_place;  // 0: out is gate, 1: out is up
  Floats gate, up;

  static GatedCase random(Random& random) {
    constexpr float kSizes[] = {1e-3f, 1, 1, 60, 1e30f};  // as far as powers are infinite
    GatedCase c{1 + random.below(3), random.pick(kOddSizes), static_cast<int>(random.below(4)), {}, {}};
    if (random.chance(15)) c.cols = 16000 + random.below(1000);  // several units
    c.gate = Floats(random, c.rows * c.cols, random.pick(kSizes)), c.up = Floats(random, c.rows * c.cols, 1);
    return c;
  }
  std::string describe() const { return text("%zu x %zu, in place %d", rows, cols, in_place); }
  Buffers outputs(uint8_t fill) const { return one_output(rows * cols, fill); }
  core::Status run_rows(const core::Context& context, size_t first, size_t count, Buffers& outputs) const {
    const float* from[] = {gate.data() + first * cols, up.data() + first * cols};
    auto* out = outputs[0].at<float>();
    if (in_place < 2) from[in_place] = std::copy_n(from[in_place], count * cols, out) - count * cols;
    return (kGelu ? core::geglu : core::swiglu)(context, {count * cols, from[0], from[1], out});
  }
  void add_errors(const Buffers& got, Errors& errors) const {
    for (size_t i = 0; i < rows * cols; ++i) {
      const double g = wide(gate[i]), u = kGelu ? 1.5957691216057308 * g * (1 + 0.044715 * g * g) : g;
      const double want = g / (1 + std::exp(-u)) * wide(up[i]);
      // Roundings of an exponent weigh as much as it is large. Powers end at e^88, so that what is below -88 gives
      // 1 / e^88 of the gate and not less.
      const double exponent = kGelu ? 5 * kUnit * std::fmin(std::fabs(u), 90) : 0;
      errors.add(element(got[0], i), want,
                 (kExpError + 4 * kUnit + exponent) * std::fabs(want) + 0x1p-126 * std::fabs(g * wide(up[i])));
    }
  }
};

struct ScaleCase {
  static constexpr const char* kName = "scale";
  size_t rows, cols;
  float factor, softcap;
  Floats x;

  static ScaleCase random(Random& random) {
    constexpr float kSizes[] = {1e-3f, 1, 30, 1e4f, 1e30f};
    ScaleCase c{1 + random.below(3),
                random.pick(kOddSizes),
                random.chance(50) ? 1 : 0.22f,
                random.chance(40)   ? 0
                : random.chance(50) ? 30.0f
                                    : 50.0f,
                {}};
    if (random.chance(15)) c.cols = 16000 + random.below(1000);
    c.x = Floats(random, c.rows * c.cols, random.pick(kSizes));
    return c;
  }
  std::string describe() const { return text("%zu x %zu by %g, within %g", rows, cols, wide(factor), wide(softcap)); }
  Buffers outputs(uint8_t fill) const { return one_output(rows * cols, fill); }
  core::Status run_rows(const core::Context& context, size_t first, size_t count, Buffers& outputs) const {
    std::copy_n(x.data() + first * cols, count * cols, outputs[0].at<float>());
    return core::scale(context, {count * cols, factor, softcap, outputs[0].at<float>()});
  }
  void add_errors(const Buffers& got, Errors& errors) const {
    for (size_t i = 0; i < rows * cols; ++i) {
      const double scaled = wide(x[i]) * wide(factor), cap = wide(softcap);
      const double want = softcap > 0 ? cap * std::tanh(scaled / cap) : scaled;
      errors.add(element(got[0], i), want, softcap > 0 ? 3e-7 * cap : kUnit * std::fabs(want));
    }
  }
};

struct ColumnsCase {
  static constexpr const char* kName = "columns";
  size_t rows, width, from, cols;
  Floats x;

  static ColumnsCase random(Random& random) {
    ColumnsCase c{1 + random.below(5), 1 + random.pick(kOddSizes), 0, 0, {}};
    c.from = random.below(c.width), c.cols = 1 + random.below(c.width - c.from);
    c.x = Floats(random, c.rows * c.width, 1);
    return c;
  }
  std::string describe() const { return text("%zu rows, %zu of %zu from %zu", rows, cols, width, from); }
  Buffers outputs(uint8_t fill) const { return one_output(rows * cols, fill); }
  core::Status run_rows(const core::Context& context, size_t first, size_t count, Buffers& outputs) const {
    return core::columns(context, {count, width, from, cols, x.data() + first * width, outputs[0].at<float>()});
  }
  void add_errors(const Buffers& got, Errors& errors) const {
    for (size_t r = 0; r < rows; ++r)
      for (size_t i = 0; i < cols; ++i) errors.add(element(got[0], r * cols + i), wide(x[r * width + from + i]), 0);
  }
};

struct AddCase {
  static constexpr const char* kName = "add";
  size_t rows, cols;
  Floats x, to;

  static AddCase random(Random& random) {
    AddCase c{1 + random.below(3), random.pick(kOddSizes), {}, {}};
    if (random.chance(15)) c.cols = 16000 + random.below(1000);
    c.x = Floats(random, c.rows * c.cols, 1), c.to = Floats(random, c.rows * c.cols, 1);
    return c;
  }
  std::string describe() const { return text("%zu x %zu", rows, cols); }
  Buffers outputs(uint8_t fill) const { return one_output(rows * cols, fill); }
  core::Status run_rows(const core::Context& context, size_t first, size_t count, Buffers& outputs) const {
    std::copy_n(to.data() + first * cols, count * cols, outputs[0].at<float>());
    return core::add(context, {count * cols, x.data() + first * cols, outputs[0].at<float>()});
  }
  void add_errors(const Buffers& got, Errors& errors) const {
    for (size_t i = 0; i < rows * cols; ++i) {
      const double want = wide(x[i]) + wide(to[i]);
      errors.add(element(got[0], i), want, kUnit * std::fabs(want));
    }
  }
};

}  // namespace

void test_layers(const Options& options) {
  for (const kernels::KernelTable* kernels : options.tables) {
    compare_layers<DenseCase>(options, *kernels, options.cases(120, 30));
    compare_layers<RmsNormCase>(options, *kernels, options.cases(120, 40));
    compare_layers<RopeCase>(options, *kernels, options.cases(120, 40));
    compare_layers<GatedCase<false>>(options, *kernels, options.cases(100, 25));
    compare_layers<GatedCase<true>>(options, *kernels, options.cases(100, 25));
    compare_layers<ScaleCase>(options, *kernels, options.cases(60, 25));
    compare_layers<ColumnsCase>(options, *kernels, options.cases(40, 15));
    compare_layers<AddCase>(options, *kernels, options.cases(60, 25));
  }
}

}  // namespace hqq::test
