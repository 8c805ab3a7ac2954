#include "../core/gradients.h"
#include "layers.h"

// Operations of tuning: products within a bound of float64, the same bits for any number of threads; fake quantization
// with the bytes of scalar kernels.
namespace hqq::test {
namespace {

// A gradient of dense_linear: rows of those of x, or of those of the weights. Beside it what both are made of.
template <bool kOfWeights>
struct LinearGradientCase {
  static constexpr const char* kName = kOfWeights ? "denseLinearGradient (weights)" : "denseLinearGradient (x)";
  size_t rows, cols, terms;  // of the product
  Floats left, right, before;

  static LinearGradientCase random(Random& random) {
    constexpr size_t kRows[] = {1, 2, 3, 5, 12, 13, 48, 97, 200};
    LinearGradientCase c{random.pick(kRows), random.pick(kOddSizes), random.pick(kOddSizes), {}, {}, {}};
    if (random.chance(10)) c.terms = 250 + random.below(300);  // several chains
    if (random.chance(10)) c.cols = 250 + random.below(100);
    c.left = Floats(random, c.rows * c.terms, 1), c.right = Floats(random, c.terms * c.cols, 0.1f);
    c.before = Floats(random, c.rows * c.cols, 1);
    return c;
  }
  std::string describe() const { return text("%zu x %zu of %zu terms", rows, cols, terms); }
  Buffers outputs(uint8_t fill) const { return one_output(rows * cols, fill); }
  core::Status run_rows(const core::Context& context, size_t first, size_t count, Buffers& outputs) const {
    auto* out = outputs[0].at<float>();
    core::DenseLinearGradient op{};
    if constexpr (kOfWeights) {
      // Rows are outputs here: their gradients are columns.
      std::vector<float> gradient(terms * count);
      for (size_t k = 0; k < terms; ++k)
        for (size_t r = 0; r < count; ++r) gradient[k * count + r] = left[(first + r) * terms + k];
      op.batch = terms, op.in_features = cols, op.out_features = count;
      op.x = right.data(), op.gradient = gradient.data(), op.weight_gradient = out;
      return core::dense_linear_gradient(context, op);
    }
    std::copy_n(before.data() + first * cols, count * cols, out);
    op.batch = count, op.in_features = cols, op.out_features = terms;
    op.weights = right.data(), op.gradient = left.data() + first * terms, op.x_gradient = out;
    return core::dense_linear_gradient(context, op);
  }
  void add_errors(const Buffers& got, Errors& errors) const {
    const double chain = std::fmin(static_cast<double>(terms), kernels::kChainTerms);
    const double chains = std::ceil(static_cast<double>(terms) / kernels::kChainTerms);
    for (size_t r = 0; r < rows; ++r)
      for (size_t i = 0; i < cols; ++i) {
        double sum = kOfWeights ? 0 : wide(before[r * cols + i]), size = std::fabs(sum);
        for (size_t k = 0; k < terms; ++k) {
          const double term = wide(left[r * terms + k]) * wide(right[k * cols + i]);
          sum += term, size += std::fabs(term);
        }
        errors.add(element(got[0], r * cols + i), sum, kUnit * (2 * chain + chains + 1) * size);
      }
  }
};

// All three operations, one after the other.
struct FakeCase {
  static constexpr const char* kName = "fakeQuantize";
  size_t rows, cols;
  int axis;
  float max_code;
  kernels::ZeroKind zero_kind;
  bool gives_codes, has_offsets;
  Floats weights, offsets, gradient, scale, zero;

  static FakeCase random(Random& random) {
    constexpr float kCodes[] = {1, 2, 3, 7, 15, 255};
    FakeCase c{random.pick(kOddSizes),
               random.pick(kOddSizes),
               random.chance(50) ? 1 : 0,
               random.pick(kCodes),
               static_cast<kernels::ZeroKind>(random.below(4)),
               random.chance(30),
               random.chance(70),
               {},
               {},
               {},
               {},
               {}};
    const size_t count = c.rows * c.cols, groups = c.groups();
    c.weights = Floats(random, count, 1), c.gradient = Floats(random, count, 1),
    c.offsets = Floats(random, count, 0.2f);
    c.scale = Floats(random, groups, 4 / c.max_code), c.zero = Floats(random, groups, c.max_code);
    for (size_t i = 0; i < count; ++i)
      if (random.chance(10)) c.gradient.data()[i] = random.chance(50) ? 0.0f : 0x1p-149f;
    for (size_t g = 0; g < groups; ++g)
      if (random.chance(10)) c.scale.data()[g] = 0;
    return c;
  }
  size_t groups() const { return axis == 1 ? rows : cols; }
  std::string describe() const {
    return text("%zu x %zu, axis %d, codes to %g, zeros %s", rows, cols, axis, wide(max_code),
                kernels::kZeroKinds[static_cast<size_t>(zero_kind)]);
  }
  Buffers outputs(uint8_t fill) const {
    Buffers outputs;
    const size_t count = rows * cols;
    for (const char* name : {"out", "ofWeights", "ofOffsets", "offsets", "stepped"})
      outputs.emplace_back(name, Element::f32, count, fill);
    for (const char* name : {"ofScale", "ofZero", "factor", "shift", "scale", "zero"})
      outputs.emplace_back(name, Element::f32, groups(), fill);
    outputs.emplace_back("codes", Element::bytes, count, fill);
    return outputs;
  }
  core::Status run(const core::Context& context, Buffers& to) const {
    const size_t count = rows * cols;
    const auto at = [&to](size_t i) { return to[i].at<float>(); };
    auto* const codes = to[11].at<uint8_t>();
    kernels::FakeGroups groups_of{
        rows, cols, axis, max_code, weights.data(), has_offsets ? offsets.data() : nullptr, scale.data(), zero.data()};
    core::Status status = core::fake_quantize(context, {groups_of, {at(0), codes}});
    if (status != core::Status::ok) return status;
    std::fill_n(at(1), count, 0.0f), std::fill_n(at(2), count, 0.0f);
    const kernels::FakeGradients gradients{gradient.data(), gives_codes ? codes : nullptr, at(1), at(2), at(5), at(6)};
    status = core::fake_quantize_gradient(context, {groups_of, gradients});
    if (status != core::Status::ok) return status;
    std::copy_n(offsets.data(), count, at(3));
    std::fill_n(at(7), groups(), 1.0f), std::fill_n(at(8), groups(), 0.0f);
    std::copy_n(scale.data(), groups(), at(9)), std::copy_n(zero.data(), groups(), at(10));
    groups_of.offsets = at(3), groups_of.scale = at(9), groups_of.zero = at(10);
    const kernels::FakeStep step{.zero_kind = zero_kind,
                                 .gradient = gradient.data(),
                                 .offsets = at(3),
                                 .out = at(4),
                                 .start_scale = scale.data(),
                                 .start_zero = zero.data(),
                                 .factor = at(7),
                                 .shift = at(8),
                                 .scale = at(9),
                                 .zero = at(10),
                                 .offset_step = 0.1f,
                                 .factor_step = 0.02f,
                                 .shift_step = 0.6f,
                                 .factor_range = 0.05f,
                                 .shift_range = 1.0f};
    for (int i = 0; i < 4 && status == core::Status::ok; ++i)
      status = core::fake_quantize_step(context, {groups_of, step});
    return status;
  }
};

void compare_fake(const Options& options, const kernels::KernelTable& kernels, int count) {
  report.begin(text("%s: %s as %s does", kernels.isa, FakeCase::kName, options.reference->isa));
  const std::atomic<bool> never{false};
  for (int i = 0; i < count; ++i) {
    Random random(options.seed * 1000039 + static_cast<uint64_t>(i));
    const FakeCase c = FakeCase::random(random);
    const std::string context = text("%s case %d: ", kernels.isa, i) + c.describe();
    Buffers want = c.outputs(0xa5);
    check(c.run({*options.reference, 1, never}, want) == core::Status::ok, context + ": is not done");
    for (const int threads : {1, 2, 7}) {
      Buffers got = c.outputs(0x5a);
      check(c.run({kernels, threads, never}, got) == core::Status::ok, context + ": is not done");
      expect_same(got, want, context + text(", %d threads", threads));
    }
  }
}

}  // namespace

void test_tune(const Options& options) {
  for (const kernels::KernelTable* kernels : options.tables) {
    compare_layers<LinearGradientCase<false>>(options, *kernels, options.cases(100, 25));
    compare_layers<LinearGradientCase<true>>(options, *kernels, options.cases(100, 25));
    compare_fake(options, *kernels, options.cases(200, 50));
  }
}

}  // namespace hqq::test
