#include <algorithm>
#include <cmath>

#include "../kernels/solve/solve.h"
#include "../simd/scalar.h"
#include "cases.h"

// What the list of solvers does not use yet: several starts, and steps that move the scale.
namespace hqq::test {
namespace {

using simd::Scalar;

constexpr float kWidths[] = {1.0f, 0.7f, 1.4f};  // of the ranges that it starts from
constexpr int kAll = -1, kSteps = 5;

// Fits scale and zero to the codes by least squares, from ranges of three widths; or from one, which its parameter
// names.
struct Toy {
  static constexpr const char* kName = "toy";
  static constexpr int kStarts = 3;
  static constexpr bool takes(size_t count) { return count == 1; }

  struct Parameters {
    int start;
  };
  static Parameters read(const kernels::SolveOptions& o) { return {static_cast<int>(o.parameters[0])}; }
  static int iterations(const Parameters&) { return kSteps; }
  static Parameters round(const Parameters& p, int) { return p; }

  template <class Group>
  static kernels::State start(const Group& g, const kernels::SolveOptions& o, const Parameters& p, int index) {
    kernels::State state = kernels::range(g, o);
    state.inv_scale /= kWidths[p.start == kAll ? index : p.start];
    state.scale = 1.0f / state.inv_scale;
    state.zero = 0.5f * o.max_code - 0.5f * (g.facts.least + g.facts.most) * state.inv_scale;
    return state;
  }

  template <class Group>
  static bool step(const Group& g, const kernels::SolveOptions& o, const Parameters&) {
    const auto n = static_cast<double>(g.size);
    double codes = 0, weights = 0, squares = 0, products = 0;
    each(g, o, [&](double code, double weight) {
      codes += code, weights += weight, squares += code * code, products += code * weight;
    });
    const double spread = n * squares - codes * codes;
    if (!(spread > 0)) return false;
    const auto scale = static_cast<float>((n * products - codes * weights) / spread);
    const auto zero = static_cast<float>(codes / n - weights / n / static_cast<double>(scale));
    if (!(scale > 0) || (scale == g.now.scale && zero == g.now.zero)) return false;
    g.now = {1.0f / scale, scale, zero};
    g.scale_weights();
    return true;
  }

  template <class Group>
  static double objective(const Group& g, const kernels::SolveOptions& o, const Parameters&) {
    double sum = 0;
    each(g, o, [&](double code, double weight) {
      const double error = weight - (code - static_cast<double>(g.now.zero)) * static_cast<double>(g.now.scale);
      sum += error * error;
    });
    return sum;
  }

 private:
  template <class Group, class Visit>
  static void each(const Group& g, const kernels::SolveOptions& o, Visit visit) {
    for (size_t i = 0; i < g.size; ++i) {
      const float place = std::clamp(g.scaled[i] + g.now.zero, 0.0f, o.max_code);
      visit(std::nearbyint(static_cast<double>(place)), static_cast<double>(g.weights[i]));
    }
  }
};

constexpr size_t kGroups = 7;

struct Solved {
  std::vector<float> scale = std::vector<float>(kGroups), zero = std::vector<float>(kGroups);
  std::vector<uint8_t> codes;
  kernels::BlockStats stats{};
  size_t size, stride;

  Solved(const std::vector<float>& weights, size_t of_size, float max_code, DType meta_dtype, int start)
      : size(of_size), stride(kernels::padded(of_size)) {
    codes.resize(kGroups * stride);
    std::vector<float> scaled(kGroups * stride);
    const auto parameter = static_cast<float>(start);
    kernels::solve_block<Scalar, Toy>({.max_code = max_code,
                                       .zero_kind = kernels::ZeroKind::real,
                                       .reference_guards = false,
                                       .meta_dtype = meta_dtype,
                                       .scale_dtype = DType::f32,
                                       .parameters = &parameter,
                                       .parameter_count = 1},
                                      {.weights = weights.data(),
                                       .scaled = scaled.data(),
                                       .importance = nullptr,
                                       .lanes = nullptr,
                                       .memory = nullptr,
                                       .codes = codes.data(),
                                       .scale = scale.data(),
                                       .zero = zero.data(),
                                       .groups = kGroups,
                                       .size = size,
                                       .stride = stride,
                                       .codes_stride = stride},
                                      &stats);
  }

  // The squared error of a group, with scale and zero as `dtype` holds them.
  double error(const std::vector<float>& weights, size_t group, DType dtype) const {
    const double s = stored(scale[group], dtype), z = stored(zero[group], dtype);
    double sum = 0;
    for (size_t i = 0; i < size; ++i) {
      const double error =
          static_cast<double>(weights[group * stride + i]) - (static_cast<double>(codes[group * stride + i]) - z) * s;
      sum += error * error;
    }
    return sum;
  }

 private:
  static double stored(float value, DType dtype) {
    uint16_t memory[2];
    float result;
    kernels::kScalar.narrow[static_cast<size_t>(dtype)](&value, 1, memory);
    kernels::kScalar.widen[static_cast<size_t>(dtype)](memory, 1, &result);
    return static_cast<double>(result);
  }
};

void keep_the_best_start(const Options& options) {
  report.begin("solvers: of several starts the best is kept");
  int chosen[3] = {};
  for (int round = 0; round < options.cases(200, 40); ++round) {
    Random random(options.seed * 7919 + static_cast<uint64_t>(round));
    constexpr size_t kSizes[] = {5, 16, 33, 64, 128};
    const size_t size = random.pick(kSizes), stride = kernels::padded(size);
    const float max_code = random.chance(50) ? 3 : 15;
    std::vector<float> weights(kGroups * stride);
    for (float& weight : weights) weight = random.normal() * (random.chance(5) ? 4.0f : 1.0f);
    for (size_t g = 0; g < kGroups; ++g)
      std::fill_n(weights.begin() + static_cast<ptrdiff_t>(g * stride + size), stride - size, weights[g * stride]);
    const Solved all(weights, size, max_code, DType::f32, kAll);
    const Solved single[] = {{weights, size, max_code, DType::f32, 0},
                             {weights, size, max_code, DType::f32, 1},
                             {weights, size, max_code, DType::f32, 2}};
    for (size_t g = 0; g < kGroups; ++g) {
      const auto less = [&](const Solved& a, const Solved& b) {
        return a.error(weights, g, DType::f32) < b.error(weights, g, DType::f32);
      };
      const Solved* best = std::min_element(std::begin(single), std::end(single), less);
      ++chosen[best - single];
      check(all.scale[g] == best->scale[g] && all.zero[g] == best->zero[g], text("round %d, group %zu", round, g));
      check(std::equal(all.codes.begin() + static_cast<ptrdiff_t>(g * stride),
                       all.codes.begin() + static_cast<ptrdiff_t>(g * stride + size),
                       best->codes.begin() + static_cast<ptrdiff_t>(g * stride)),
            text("round %d, codes of group %zu", round, g));
    }
    check(all.stats.iterations > 0 && all.stats.iterations <= kSteps, text("%d steps", all.stats.iterations));
  }
  if (options.brief) return;  // of so few groups chance may leave a start out
  for (const int count : chosen) check(count > 0, "one of the starts is never the best");
}

void measure_what_is_stored(const Options& options) {
  report.begin("solvers: errors are those of what is stored, where the scale was moved too");
  Random random(options.seed);
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    constexpr size_t kSize = 64;
    std::vector<float> weights(kGroups * kSize);
    for (float& weight : weights) weight = random.normal();
    const Solved solved(weights, kSize, 15, dtype, kAll);
    double sum = 0;
    for (size_t g = 0; g < kGroups; ++g) sum += solved.error(weights, g, dtype);
    check(std::fabs(solved.stats.squared_error - sum) <= 1e-5 * sum,
          text("type %d: %.9g, not %.9g", static_cast<int>(dtype), solved.stats.squared_error, sum));
  }
}

}  // namespace

void test_solver(const Options& options) {
  keep_the_best_start(options);
  measure_what_is_stored(options);
}

}  // namespace hqq::test
