#include "norm-gradients.h"

namespace hqq::test {
namespace {

struct RmsNormGradientCase : NormGradientCase {
  static constexpr const char* kName = "rmsNormGradient";

  static RmsNormGradientCase random(Random& random) { return {NormGradientCase::random(random)}; }
  core::Status run_rows(const core::Context& context, size_t first, size_t count, Buffers& outputs) const {
    return core::rms_norm_gradient(context, rows_of(first, count, 1e-5f, outputs));
  }
  void add_errors(const Buffers& got, Errors& errors) const {
    for (size_t r = 0; r < rows; ++r) {
      double squares = 0, sum = 0, terms = 0;
      for (size_t i = r * cols; i < (r + 1) * cols; ++i) {
        const double product = wide(x[i]) * wide(weight[i - r * cols]) * wide(gradient[i]);
        squares += wide(x[i]) * wide(x[i]), sum += product, terms += std::fabs(product);
      }
      const double count = static_cast<double>(cols), factor = 1 / std::sqrt(squares / count + 1e-5f);
      for (size_t i = r * cols; i < (r + 1) * cols; ++i) {
        const double own = factor * wide(weight[i - r * cols]) * wide(gradient[i]);
        const double pull = wide(x[i]) * factor * factor * factor / count, old = adds ? wide(before[i]) : 0;
        errors.add(element(got[0], i), old + own - pull * sum,
                   kUnit * (3 * roundings(cols) + 10) * (std::fabs(own) + std::fabs(pull) * terms + std::fabs(old)));
      }
    }
  }
};

// Gradients of the gate, then of what it is multiplied with.
template <bool kGelu>
struct GatedGradientCase {
  static constexpr const char* kName = kGelu ? "gegluGradient" : "swigluGradient";
  size_t rows, cols;
  Floats gate, up, gradient;

  static GatedGradientCase random(Random& random) {
    constexpr float kSizes[] = {1e-3f, 1, 1, 3, 20};
    GatedGradientCase c{1, random.pick(kOddSizes), {}, {}, {}};
    if (random.chance(15)) c.cols = 16000 + random.below(1000);  // several units
    c.gate = Floats(random, c.cols, random.pick(kSizes));
    c.up = Floats(random, c.cols, 1), c.gradient = Floats(random, c.cols, 1);
    return c;
  }
  std::string describe() const { return text("%zu", cols); }
  Buffers outputs(uint8_t fill) const { return one_output(2 * cols, fill); }
  core::Status run_rows(const core::Context& context, size_t, size_t, Buffers& outputs) const {
    auto* out = outputs[0].at<float>();
    return (kGelu ? core::geglu_gradient : core::swiglu_gradient)(
        context, {cols, {gate.data(), up.data(), gradient.data(), out, out + cols}});
  }
  void add_errors(const Buffers& got, Errors& errors) const {
    for (size_t i = 0; i < cols; ++i) {
      const double g = wide(gate[i]), linear = 1.5957691216057308, cubic = 0.044715;
      const double u = kGelu ? linear * g * (1 + cubic * g * g) : g;
      const double slope = kGelu ? linear * (1 + 3 * cubic * g * g) : 1;
      const double power = std::exp(-std::fmin(std::fmax(u, -700), 700)), share = 1 / (1 + power);
      const double rest = share * (power * share) * g * slope, y = wide(gradient[i]);
      const double roundings = kUnit * 16 + kExpError + 6 * kUnit * std::fmin(std::fabs(u), 90);
      errors.add(element(got[0], i), y * wide(up[i]) * (share + rest),
                 2 * roundings * std::fabs(y * wide(up[i])) * (share + std::fabs(rest)) + 1e-30);
      errors.add(element(got[0], cols + i), y * g * share, 2 * roundings * std::fabs(y * g * share) + 1e-30);
    }
  }
};

struct ScaleGradientCase {
  static constexpr const char* kName = "scaleGradient";
  size_t rows, cols;
  float cap;
  Floats bent, gradient;

  static ScaleGradientCase random(Random& random) {
    ScaleGradientCase c{1 + random.below(3), random.pick(kOddSizes), random.chance(50) ? 30.0f : 2.0f, {}, {}};
    if (random.chance(15)) c.cols = 16000 + random.below(1000);
    c.bent = Floats(random, c.rows * c.cols, c.cap / 4), c.gradient = Floats(random, c.rows * c.cols, 1);
    return c;
  }
  std::string describe() const { return text("%zu x %zu within %g", rows, cols, wide(cap)); }
  Buffers outputs(uint8_t fill) const { return one_output(rows * cols, fill); }
  core::Status run_rows(const core::Context& context, size_t first, size_t count, Buffers& outputs) const {
    std::copy_n(gradient.data() + first * cols, count * cols, outputs[0].at<float>());
    return core::scale_gradient(context,
                                {count * cols, 0.22f, cap, bent.data() + first * cols, outputs[0].at<float>()});
  }
  void add_errors(const Buffers& got, Errors& errors) const {
    for (size_t i = 0; i < rows * cols; ++i) {
      const double y = wide(gradient[i]) * wide(0.22f), share = wide(bent[i]) / wide(cap);
      errors.add(element(got[0], i), y * (1 - share * share), 8 * kUnit * std::fabs(y) * (1 + share * share));
    }
  }
};

struct AttentionGradientCase {
  size_t rows, group, kv_heads, width, window;
  float softcap;
  bool causal;
  Floats q, k, v, gradient;

  static AttentionGradientCase random(Random& random) {
    constexpr size_t kRows[] = {1, 2, 15, 16, 17, 33, 50}, kWindows[] = {0, 0, 1, 7, 16, 17, 40};
    AttentionGradientCase c{random.pick(kRows),
                            1 + random.below(4),
                            1 + random.below(3),
                            random.pick(kOddSizes),
                            random.pick(kWindows),
                            random.chance(60) ? 0 : 2.0f,
                            random.chance(70),
                            {},
                            {},
                            {},
                            {}};
    const size_t keys = c.rows * c.kv_heads * c.width;
    c.q = Floats(random, keys * c.group, 1), c.k = Floats(random, keys, 1), c.v = Floats(random, keys, 1);
    c.gradient = Floats(random, keys * c.group, 1);
    return c;
  }
  float scale() const { return 1 / std::sqrt(static_cast<float>(width)); }
  std::string describe() const {
    return text("%zu rows, %zu x %zu heads of %zu, window %zu, cap %g%s", rows, kv_heads, group, width, window,
                wide(softcap), causal ? "" : ", all to all");
  }
  // Of q, k and v, one after the other.
  std::vector<float> run(const core::Context& context) const {
    std::vector<float> out(q.size() + 2 * k.size(), 7);
    float* const at = out.data();
    core::attention_gradient(
        context, {rows, group * kv_heads, kv_heads, width, window, causal, scale(), softcap, q.data(), k.data(),
                  v.data(), gradient.data(), at, at + q.size(), at + q.size() + k.size()});
    return out;
  }
  std::vector<double> exact() const {
    std::vector<double> out(q.size() + 2 * k.size(), 0), p(rows), slope(rows), change(rows);
    double *const dq = out.data(), *const dk = dq + q.size(), *const dv = dk + k.size();
    for (size_t r = 0; r < rows; ++r)
      for (size_t h = 0; h < group * kv_heads; ++h) {
        const size_t at = (r * group * kv_heads + h) * width, end = causal ? r + 1 : rows,
                     first = causal && window > 0 && r + 1 > window ? r + 1 - window : 0;
        const auto line = [&](size_t j) { return (j * kv_heads + h / group) * width; };
        double total = 0, mean = 0;
        for (size_t j = first; j < end; ++j) {
          double score = 0;
          change[j] = 0, slope[j] = wide(scale());
          for (size_t d = 0; d < width; ++d) {
            score += wide(q[at + d]) * wide(k[line(j) + d]);
            change[j] += wide(gradient[at + d]) * wide(v[line(j) + d]);
          }
          score *= wide(scale());
          if (softcap > 0) {
            const double bent = std::tanh(score / wide(softcap));
            score = wide(softcap) * bent, slope[j] *= 1 - bent * bent;
          }
          p[j] = std::exp(score), total += p[j];
        }
        for (size_t j = first; j < end; ++j) p[j] /= total, mean += p[j] * change[j];
        for (size_t j = first; j < end; ++j) {
          const double own = p[j] * (change[j] - mean) * slope[j];
          for (size_t d = 0; d < width; ++d) {
            dq[at + d] += own * wide(k[line(j) + d]), dk[line(j) + d] += own * wide(q[at + d]);
            dv[line(j) + d] += p[j] * wide(gradient[at + d]);
          }
        }
      }
    return out;
  }
};

void compare_attention(const Options& options, const kernels::KernelTable& kernels) {
  report.begin(text("%s: attentionGradient as float64 does", kernels.isa));
  const std::atomic<bool> never{false};
  for (int i = 0; i < options.cases(60, 20); ++i) {
    Random random(options.seed * 1000117 + static_cast<uint64_t>(i));
    const AttentionGradientCase c = AttentionGradientCase::random(random);
    const std::string name = text("%s case %d: ", kernels.isa, i) + c.describe();
    const std::vector<float> one = c.run({kernels, 1, never});
    for (const int threads : {2, 7})
      check(std::memcmp(c.run({kernels, threads, never}).data(), one.data(), one.size() * sizeof(float)) == 0,
            name + text(", %d threads", threads));
    const std::vector<double> want = c.exact();
    Errors errors;
    // Numbers around 1, scores around 1: some dozens of roundings of sums of as many as there are rows, or elements.
    for (size_t e = 0; e < one.size(); ++e) {
      const double terms = std::sqrt(static_cast<double>(c.rows * c.group)) + std::sqrt(static_cast<double>(c.width));
      errors.add(one[e], want[e], 64 * kUnit * (terms + std::fabs(want[e])));
    }
    errors.expect(name);
  }
}

}  // namespace

void test_gradients(const Options& options) {
  for (const kernels::KernelTable* kernels : options.tables) {
    compare_layers<RmsNormGradientCase>(options, *kernels, options.cases(80, 25));
    compare_layers<GatedGradientCase<false>>(options, *kernels, options.cases(60, 20));
    compare_layers<GatedGradientCase<true>>(options, *kernels, options.cases(60, 20));
    compare_layers<ScaleGradientCase>(options, *kernels, options.cases(40, 20));
    compare_attention(options, *kernels);
  }
}

}  // namespace hqq::test
