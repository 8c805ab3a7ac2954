#include <cmath>

#include "../isa/dispatch.h"
#include "../kernels/table.h"
#include "cases.h"
#include "emulate.h"

// Products of codes: those of bytes to the bit, those of floats against float64; the same bits for any number of
// threads and for a row among others or alone. Panels give back what went into them.
namespace hqq::test {
namespace {

constexpr double kFloatBound = 3e-6;  // of the sum of |terms|: docs/numerics.md

struct LinearCase {
  Format format;
  size_t out, groups, size, batch;
  std::vector<std::byte> packed;
  std::vector<float> scale, zero, bias, x;
  kernels::MetaForm form;  // that holds these
  bool int8;

  static LinearCase random(Random& random) {
    constexpr size_t kSizes[] = {1, 4, 16, 20, 32, 33, 64, 64, 128, 200, 256};
    LinearCase c;
    c.format = random.pick(kAllFormats);
    c.out = random.pick(kOddSizes), c.groups = 1 + random.below(5), c.size = random.pick(kSizes);
    constexpr size_t kBatches[] = {1, 1, 2, 3, 4, 7, 8, 13, 16, 17, 33, 66};
    c.batch = random.pick(kBatches), c.int8 = random.chance(50);
    c.packed.resize(c.step() * c.size * row_of(c.format).word_bytes);
    for (auto& byte : c.packed) byte = static_cast<std::byte>(random.next());
    const int levels = 1 << row_of(c.format).bits;
    for (size_t g = 0; g < c.out * c.groups; ++g) {
      c.scale.push_back(0.01f + 0.01f * std::fabs(random.uniform()));
      c.zero.push_back(static_cast<float>(levels - 1) * (0.5f + 0.2f * random.uniform()));
    }
    c.form = {random.chance(50), random.chance(50) ? static_cast<int>(random.below(static_cast<size_t>(levels))) : -1};
    if (c.form.zero >= 0) std::fill(c.zero.begin(), c.zero.end(), static_cast<float>(c.form.zero));
    if (c.form.half) {
      for (float& scale : c.scale)
        scale = std::ldexp(std::round(std::ldexp(scale, 16)), -16) * (random.chance(9) ? 0x1p-8f : 1);
      for (float& zero : c.zero) zero = std::round(zero * 4) / 4;
    }
    for (size_t o = 0; o < c.out && random.chance(90); ++o) c.bias.push_back(random.normal());
    if (c.bias.size() != c.out) c.bias.clear();
    for (size_t i = 0; i < c.batch * c.cols(); ++i) c.x.push_back(random.normal());
    return c;
  }
  size_t cols() const { return groups * size; }
  size_t step() const { return (out * groups + row_of(format).fields - 1) / row_of(format).fields; }
  std::string describe() const {
    return text("%d bits, %zu x %zu in groups of %zu, %zu rows, %s, zero %d, scales of %d bits", row_of(format).bits,
                out, cols(), size, batch, int8 ? "int8" : "float32", form.zero, form.half ? 16 : 32);
  }
};

// Panels in memory of just their size.
struct LaidOut {
  Buffers memory;
  core::Panels panels;

  LaidOut(const LinearCase& c, const core::Context& context, const kernels::MetaForm& form, uint8_t fill) {
    panels = {c.format, c.out, c.cols(), c.size, nullptr, nullptr, form};
    memory.emplace_back("codes", Element::bytes, panels.count() * c.groups * panels.group_bytes(), fill);
    const Element meta = form.half ? Element::f16 : Element::f32;
    memory.emplace_back("meta", meta, panels.count() * c.groups * form.count(), fill);
    panels.codes = memory[0].at<uint8_t>();
    panels.meta = memory[1].at<std::byte>();
    core::lay_out(context, {panels, c.packed.data(), c.step(), c.scale.data(), c.zero.data()});
  }
};

Buffer multiply(const LinearCase& c, const core::Context& context, const core::Panels& panels, size_t first,
                size_t rows, uint8_t fill) {
  Buffer out("out", Element::f32, rows * c.out, fill);
  core::Linear op;
  op.layers.push_back({panels, c.bias.empty() ? nullptr : c.bias.data(), out.at<float>()});
  op.x = c.x.data() + first * c.cols(), op.batch = rows, op.int8 = c.int8;
  core::linear(context, op);
  return out;
}

Buffer multiply_tiled(const LinearCase& c, const core::Context& context, size_t first, size_t rows, uint8_t fill) {
  Buffer out("out", Element::f32, rows * c.out, fill);
  core::linear_tiled(context, {c.packed.data(), c.format, c.out * c.groups, c.size, c.step(), 1, c.scale.data(),
                               c.zero.data(), c.out, c.cols(), c.bias.empty() ? nullptr : c.bias.data(),
                               c.x.data() + first * c.cols(), rows, out.at<float>()});
  return out;
}

// The largest error, in sums of |terms|.
double error_of(const LinearCase& c, const std::vector<float>& weights, Buffer& out) {
  double worst = 0;
  for (size_t b = 0; b < c.batch; ++b) {
    for (size_t o = 0; o < c.out; ++o) {
      double sum = c.bias.empty() ? 0 : static_cast<double>(c.bias[o]), terms = std::fabs(sum) + 1e-30;
      for (size_t i = 0; i < c.cols(); ++i) {
        const double term = static_cast<double>(weights[o * c.cols() + i]) * static_cast<double>(c.x[b * c.cols() + i]);
        sum += term, terms += std::fabs(term);
      }
      worst = std::max(worst, std::fabs(sum - static_cast<double>(out.at<float>()[b * c.out + o])) / terms);
    }
  }
  return worst;
}

void compare(const LinearCase& c, const Options& options, const kernels::KernelTable& kernels,
             const std::string& context) {
  const core::Context plain{*options.reference, 1, kNever}, one{kernels, 1, kNever}, many{kernels, 7, kNever};
  LaidOut want(c, plain, c.form, 0xa5), got(c, many, c.form, 0x5a), whole(c, plain, {}, 0xa5);
  expect_same(got.memory, want.memory, context + ": panels");
  Buffers expanded, dequantized;
  expanded.emplace_back("weights", Element::f32, c.out * c.cols(), uint8_t{1});
  dequantized.emplace_back("weights", Element::f32, c.out * c.cols(), uint8_t{2});
  core::expand(many, {got.panels, expanded[0].at<float>()});
  core::dequantize(plain, {c.packed.data(), c.format, c.out * c.groups, c.size, c.step(), 1, c.scale.data(),
                           c.zero.data(), DType::f32, false, dequantized[0].at<float>()});
  expect_same(expanded, dequantized, context + ": weights");

  const float* first = dequantized[0].at<float>();
  const std::vector<float> weights(first, first + c.out * c.cols());
  Buffers all, again;
  all.push_back(multiply(c, one, got.panels, 0, c.batch, 0xa5));
  again.push_back(multiply(c, many, got.panels, 0, c.batch, 0x5a));
  expect_same(again, all, context + ": 7 threads");
  if (c.int8) {
    Buffers reference;
    reference.push_back(multiply(c, plain, whole.panels, 0, c.batch, 0x5a));
    expect_same(all, reference, context + ": products");
  } else {
    Buffers same;  // however scales and zeros lie
    same.push_back(multiply(c, one, whole.panels, 0, c.batch, 0x5a));
    expect_same(all, same, context + ": scales and zeros in float32");
    const double error = error_of(c, weights, all[0]);
    check(error <= kFloatBound, context + text(": error %g", error));
  }
  const size_t row = c.batch - 1;
  const Buffer alone = multiply(c, one, got.panels, row, 1, 0x5a);
  check(std::memcmp(alone.data(), all[0].data() + row * c.out * 4, c.out * 4) == 0, context + ": a row alone");

  Buffer tiled = multiply_tiled(c, many, 0, c.batch, 0x5a);
  const double error = error_of(c, weights, tiled);
  check(error <= kFloatBound && tiled.guards_hold(), context + text(": tiled, error %g", error));
  const Buffer tiled_alone = multiply_tiled(c, one, row, 1, 0x5a);
  check(std::memcmp(tiled_alone.data(), tiled.data() + row * c.out * 4, c.out * 4) == 0,
        context + ": tiled, a row alone");
}

// The cases with kernels that multiply bytes by `bytes`; without floats where other kernels have had them.
void test_products(const Options& options, kernels::KernelTable kernels, const kernels::ByteProducts& bytes,
                   bool floats, int cases) {
  kernels.linear.bytes = bytes;
  for (int i = 0; i < cases; ++i) {
    Random random(options.seed * 1000033 + static_cast<uint64_t>(i));
    const LinearCase c = LinearCase::random(random);
    if (!c.int8 && !floats) continue;
    compare(c, options, kernels, text("%s (%s) linear case %d: ", kernels.isa, bytes.dot, i) + c.describe());
  }
}

}  // namespace

void test_linear(const Options& options) {
  for (const kernels::KernelTable* kernels : options.tables) {
    bool best = true;
    for (const isa::Products& products : isa::products()) {
      if (products.isa != kernels->isa) continue;
      const bool runs = products.supported();
      const bool is_avx_vnni = products.isa == "avx2" && products.bytes->dot == std::string("vnni");
      if (!runs && !(is_avx_vnni && options.emulate && VnniEmulation::possible())) continue;
      report.begin(text("%s (%s): products of codes", kernels->isa, products.bytes->dot));
      if (runs) {
        check(!best || kernels->linear.bytes.dot == std::string(products.bytes->dot), "dispatch chooses them");
        test_products(options, *kernels, *products.bytes, best, options.cases(600, 60));
        best = false;
      } else {
        std::printf("%s (%s) runs with this instruction emulated\n", kernels->isa, products.bytes->dot);
        const VnniEmulation emulation;
        test_products(options, *kernels, *products.bytes, false, options.cases(120, 30));
      }
    }
  }
}

}  // namespace hqq::test
