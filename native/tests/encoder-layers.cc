#include "../core/encoder-layers.h"

#include "norm-gradients.h"

namespace hqq::test {
namespace {

struct LayerNormCase {
  static constexpr const char* kName = "layerNorm";
  size_t rows, cols;
  float epsilon, level;
  bool in_place;
  Floats x, weight, bias;

  static LayerNormCase random(Random& random) {
    constexpr size_t kRows[] = {1, 2, 3, 9};
    constexpr float kSizes[] = {1e-2f, 1, 1, 300}, kLevels[] = {0, 0, 3};
    LayerNormCase c{random.pick(kRows),
                    random.pick(kOddSizes),
                    random.chance(50) ? 1e-12f : 1e-5f,
                    random.pick(kLevels),
                    random.chance(30),
                    {},
                    {},
                    {}};
    if (random.chance(10)) c.cols = 2000 + random.below(4000);
    if (c.cols < 2) c.epsilon = 1e-5f;  // nothing else is under the root
    const float size = random.pick(kSizes);
    c.x = Floats(random, c.rows * c.cols, size);
    for (size_t i = 0; i < c.x.size(); ++i) c.x.data()[i] += c.level * size;
    c.weight = Floats(random, c.cols, 1), c.bias = Floats(random, c.cols, 1);
    return c;
  }
  std::string describe() const { return text("%zu x %zu%s", rows, cols, in_place ? ", in place" : ""); }
  Buffers outputs(uint8_t fill) const { return one_output(rows * cols, fill); }
  core::Status run_rows(const core::Context& context, size_t first, size_t count, Buffers& outputs) const {
    const float* from = x.data() + first * cols;
    auto* out = outputs[0].at<float>();
    if (in_place) std::copy_n(from, count * cols, out);
    return core::layer_norm(context, {count, cols, epsilon, in_place ? out : from, weight.data(), bias.data(), out});
  }
  void add_errors(const Buffers& got, Errors& errors) const {
    const double count = static_cast<double>(cols);
    for (size_t r = 0; r < rows; ++r) {
      double mean = 0, sizes = 0, squares = 0;
      for (size_t i = r * cols; i < (r + 1) * cols; ++i)
        mean += wide(x[i]) / count, sizes += std::fabs(wide(x[i])) / count;
      for (size_t i = r * cols; i < (r + 1) * cols; ++i) squares += (wide(x[i]) - mean) * (wide(x[i]) - mean);
      const double factor = 1 / std::sqrt(squares / count + wide(epsilon));
      for (size_t i = 0; i < cols; ++i) {
        const double off = wide(x[r * cols + i]) - mean, w = wide(weight[i]), want = off * factor * w + wide(bias[i]);
        // What the mean is off by is off in every difference, and in the deviation at most as much.
        const double shift = roundings(cols) * sizes + std::fabs(mean) + std::fabs(off);
        const double deviation = (roundings(cols) / 2 + 4) * std::fabs(off) + shift * std::fabs(off) * factor;
        errors.add(
            element(got[0], r * cols + i), want,
            kUnit * ((shift + deviation) * factor * std::fabs(w) + 2 * std::fabs(want) + std::fabs(wide(bias[i]))));
      }
    }
  }
};

// GELU, that with tanh, and ReLU.
template <int kKind>
struct ActivationCase {
  static constexpr const char* kName = kKind == 0 ? "gelu" : kKind == 1 ? "geluTanh" : "relu";
  size_t rows, cols;
  Floats x;

  static ActivationCase random(Random& random) {
    constexpr float kSizes[] = {1e-3f, 1, 1, 3, 60, 1e30f};
    ActivationCase c{1 + random.below(3), random.pick(kOddSizes), {}};
    if (random.chance(15)) c.cols = 16000 + random.below(1000);
    c.x = Floats(random, c.rows * c.cols, random.pick(kSizes));
    return c;
  }
  std::string describe() const { return text("%zu x %zu", rows, cols); }
  Buffers outputs(uint8_t fill) const { return one_output(rows * cols, fill); }
  core::Status run_rows(const core::Context& context, size_t first, size_t count, Buffers& outputs) const {
    auto* out = outputs[0].at<float>();
    std::copy_n(x.data() + first * cols, count * cols, out);
    return (kKind == 0 ? core::gelu : kKind == 1 ? core::gelu_tanh : core::relu)(context, {count * cols, out});
  }
  void add_errors(const Buffers& got, Errors& errors) const {
    for (size_t i = 0; i < rows * cols; ++i) {
      const double g = wide(x[i]), u = 1.5957691216057308 * g * (1 + 0.044715 * g * g);
      const double want = kKind == 0   ? g * std::erfc(-g / std::sqrt(2.0)) / 2
                          : kKind == 1 ? g / (1 + std::exp(-u))
                                       : std::fmax(g, 0);
      // Roundings of an exponent weigh as much as it is large; the series of what is beyond has some of its own.
      const double outside = kKind == 0 ? std::fabs(g) * std::erfc(std::fabs(g) / std::sqrt(2.0)) / 2 : std::fabs(want);
      const double exponent = kKind == 0 ? std::fmin(g * g, 180) : 5 * std::fmin(std::fabs(u), 90);
      const double bound = kKind == 2 ? 0 : (2 * kExpError + 1.2e-7 + kUnit * (24 + exponent)) * outside;
      errors.add(element(got[0], i), want,
                 bound + 2 * kUnit * std::fabs(want) + (kKind == 2 ? 0 : 1e-37 * (1 + std::fabs(g))));
    }
  }
};

struct LayerNormGradientCase : NormGradientCase {
  static constexpr const char* kName = "layerNormGradient";

  static LayerNormGradientCase random(Random& random) { return {NormGradientCase::random(random)}; }
  core::Status run_rows(const core::Context& context, size_t first, size_t count, Buffers& outputs) const {
    return core::layer_norm_gradient(context, rows_of(first, count, 1e-2f, outputs));
  }
  void add_errors(const Buffers& got, Errors& errors) const {
    const double count = static_cast<double>(cols);
    for (size_t r = 0; r < rows; ++r) {
      double mean = 0, squares = 0, level = 0, pull = 0, sizes = 0, most = 0;
      const size_t from = r * cols, end = from + cols;
      for (size_t i = from; i < end; ++i) mean += wide(x[i]) / count;
      for (size_t i = from; i < end; ++i) squares += (wide(x[i]) - mean) * (wide(x[i]) - mean);
      const double factor = 1 / std::sqrt(squares / count + wide(1e-2f));
      for (size_t i = from; i < end; ++i) {
        const double own = wide(weight[i - from]) * wide(gradient[i]), normed = (wide(x[i]) - mean) * factor;
        level += own / count, pull += own * normed / count, sizes += std::fabs(own) / count;
        most = std::fmax(most, std::fabs(normed) + factor * std::fabs(mean));
      }
      for (size_t i = from; i < end; ++i) {
        const double own = wide(weight[i - from]) * wide(gradient[i]), normed = (wide(x[i]) - mean) * factor;
        const double old = adds ? wide(before[i]) : 0;
        // Every part may be off by what sums round, and by what the mean and the deviation do in each of them.
        const double parts = std::fabs(own) + sizes * (1 + most * (std::fabs(normed) + most));
        errors.add(element(got[0], i), old + factor * (own - level - normed * pull),
                   kUnit * ((4 * roundings(cols) + 16) * factor * parts + 2 * std::fabs(old)));
      }
    }
  }
};

// Gradients of GELU, of that with tanh, and of ReLU.
template <int kKind>
struct ActivationGradientCase {
  static constexpr const char* kName = kKind == 0 ? "geluGradient" : kKind == 1 ? "geluTanhGradient" : "reluGradient";
  size_t rows, cols;
  Floats x, gradient;

  static ActivationGradientCase random(Random& random) {
    constexpr float kSizes[] = {1e-3f, 1, 1, 3, 20, 1e30f};
    ActivationGradientCase c{1 + random.below(3), random.pick(kOddSizes), {}, {}};
    if (random.chance(15)) c.cols = 16000 + random.below(1000);
    c.x = Floats(random, c.rows * c.cols, random.pick(kSizes)), c.gradient = Floats(random, c.rows * c.cols, 1);
    return c;
  }
  std::string describe() const { return text("%zu x %zu", rows, cols); }
  Buffers outputs(uint8_t fill) const { return one_output(rows * cols, fill); }
  core::Status run_rows(const core::Context& context, size_t first, size_t count, Buffers& outputs) const {
    auto* out = outputs[0].at<float>();
    std::copy_n(gradient.data() + first * cols, count * cols, out);
    return (kKind == 0   ? core::gelu_gradient
            : kKind == 1 ? core::gelu_tanh_gradient
                         : core::relu_gradient)(context, {count * cols, x.data() + first * cols, out});
  }
  void add_errors(const Buffers& got, Errors& errors) const {
    for (size_t i = 0; i < rows * cols; ++i) {
      const double g = wide(x[i]), y = wide(gradient[i]), u = 1.5957691216057308 * g * (1 + 0.044715 * g * g);
      const double share = 1 / (1 + std::exp(-u)), density = std::exp(-g * g / 2) * 0.3989422804014327;
      const double bend =
          std::fabs(g) > 100 ? 0 : share * (1 - share) * 1.5957691216057308 * g * (1 + 3 * 0.044715 * g * g);
      const double slope = kKind == 0   ? std::erfc(-g / std::sqrt(2.0)) / 2 + (std::fabs(g) > 100 ? 0 : g * density)
                           : kKind == 1 ? share + bend
                                        : (g > 0 ? 1 : 0);
      errors.add(element(got[0], i), y * slope, kKind == 2 ? 0 : 6e-6 * std::fabs(y));
    }
  }
};

}  // namespace

void test_encoder_layers(const Options& options) {
  for (const kernels::KernelTable* kernels : options.tables) {
    compare_layers<LayerNormCase>(options, *kernels, options.cases(80, 30));
    compare_layers<ActivationCase<0>>(options, *kernels, options.cases(60, 20));
    compare_layers<ActivationCase<1>>(options, *kernels, options.cases(40, 20));
    compare_layers<ActivationCase<2>>(options, *kernels, options.cases(20, 10));
    compare_layers<LayerNormGradientCase>(options, *kernels, options.cases(60, 25));
    compare_layers<ActivationGradientCase<0>>(options, *kernels, options.cases(40, 20));
    compare_layers<ActivationGradientCase<1>>(options, *kernels, options.cases(40, 20));
    compare_layers<ActivationGradientCase<2>>(options, *kernels, options.cases(20, 10));
  }
}

}  // namespace hqq::test
