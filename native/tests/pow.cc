#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "../kernels/table.h"
#include "../simd/math.h"
#include "../simd/scalar.h"
#include "cases.h"

namespace hqq::test {
namespace {

float scalar_pow(float x, float e) {
  float lanes[16];
  simd::Scalar::store(lanes, simd::pow_positive<simd::Scalar>(simd::Scalar::set(x), e));
  return lanes[0];
}

constexpr float kExponents[] = {-0.999f, -0.75f, -0.5f, -0.3f, -0.1f};

// Largest relative error over [2^low, 2^high].
double worst_error(Random& random, int count, int low, int high) {
  double worst = 0;
  for (int i = 0; i < count; ++i) {
    const int exponent = low + static_cast<int>(random.below(static_cast<size_t>(high - low)));
    const float x = std::ldexp(1.5f + 0.5f * random.uniform(), exponent), e = random.pick(kExponents);
    const double want = std::pow(static_cast<double>(x), static_cast<double>(e));
    worst = std::max(worst, std::fabs(scalar_pow(x, e) - want) / want);
  }
  return worst;
}

// Zeros of groups {-1/2, r - 1/2, 1/2} of one-bit codes after one iteration. Their scale is 1, the residual of the
// middle weight is r and that of the others 0, so the zero is (1 + 1/2 - cut) / 3 with cut = r^(p - 1) / beta: it shows
// the bits of the kernel's own power.
std::vector<float> zeros_of_powers(const kernels::KernelTable& kernels, const std::vector<float>& residuals,
                                   float norm) {
  constexpr size_t kGroups = kernels::kMaxBlock, kStride = kernels::kLanes;
  const auto parameters = hqq_parameters(static_cast<double>(norm), 16, 1, 0, 1);
  const kernels::SolveOptions options{.max_code = 1,
                                      .zero_kind = kernels::ZeroKind::real,
                                      .reference_guards = false,
                                      .meta_dtype = DType::f32,
                                      .scale_dtype = DType::f32,
                                      .parameters = parameters.data(),
                                      .parameter_count = parameters.size()};
  std::vector<float> zeros(residuals.size());
  for (size_t first = 0; first < residuals.size(); first += kGroups) {
    float weights[kGroups * kStride], scaled[kGroups * kStride], scale[kGroups];
    uint8_t codes[kGroups * kStride];
    for (size_t g = 0; g < kGroups; ++g) {
      std::fill_n(weights + g * kStride, kStride, -0.5f);
      weights[g * kStride + 1] = residuals[first + g] - 0.5f;
      weights[g * kStride + 2] = 0.5f;
    }
    const kernels::Block block{.weights = weights,
                               .scaled = scaled,
                               .importance = nullptr,
                               .lanes = nullptr,
                               .memory = nullptr,
                               .codes = codes,
                               .scale = scale,
                               .zero = zeros.data() + first,
                               .groups = kGroups,
                               .size = 3,
                               .stride = kStride,
                               .codes_stride = kStride};
    kernels::BlockStats stats{};
    kernels.solvers[solver_named("hqq")].solve_block(options, block, &stats);
  }
  return zeros;
}

}  // namespace

void test_pow(const Options& options) {
  Random random(options.seed);
  const int count = options.cases(2000000, 20000);
  report.begin("pow: relative error where shrinkage can leave something");
  const double near = worst_error(random, count, -24, 8);
  check(near < 2e-6, text("%.3g", near));
  report.begin("pow: relative error over all normal numbers");
  const double far = worst_error(random, count, -126, 126);
  check(far < 8e-6, text("%.3g", far));
  std::printf("pow: relative error %.2g, over all numbers %.2g\n", near, far);

  std::vector<float> residuals(static_cast<size_t>(options.cases(1 << 18, 1 << 13)));
  for (float& r : residuals) r = 0.25f + 0.125f * random.uniform();
  for (const kernels::KernelTable* kernels : options.tables) {
    report.begin(text("%s: the powers of %s, to the bit", kernels->isa, options.reference->isa));
    for (const float norm : {0.3f, 0.5f, 0.7f, 0.9f}) {
      const auto want = zeros_of_powers(*options.reference, residuals, norm);
      const auto got = zeros_of_powers(*kernels, residuals, norm);
      for (size_t i = 0; i < residuals.size(); ++i) {
        // No power at all would give the same zeros everywhere, too.
        const double cut = 0.0625 * std::pow(static_cast<double>(residuals[i]), static_cast<double>(norm) - 1);
        const double zero = (1.5 - std::min<double>(cut, residuals[i])) / 3;
        if (!(std::fabs(want[i] - zero) < 1e-6)) fail(text("zero %.9g, not %.9g", static_cast<double>(want[i]), zero));
        if (std::memcmp(&got[i], &want[i], sizeof(float)) != 0)
          fail(text("%.9g to the %g", static_cast<double>(residuals[i]), static_cast<double>(norm) - 1));
      }
    }
  }
}

}  // namespace hqq::test
