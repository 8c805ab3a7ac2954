#include "../kernels/table.h"
#include "cases.h"

// Every instruction set, with any number of threads, writes the bytes of scalar kernels on one thread (or of those that
// --reference names).
namespace hqq::test {
namespace {

constexpr int kThreads[] = {1, 2, 7};

template <class Case>
Buffers run(const Case& c, const kernels::KernelTable& kernels, int threads, uint8_t fill, const std::string& context) {
  Buffers outputs = c.outputs(fill);
  check(c.run({kernels, threads, kNever}, outputs) == core::Status::ok, context + ": is not done");
  for (Buffer& output : outputs) output.unify_nans();
  return outputs;
}

template <class Case>
void compare(const Case& c, const Options& options, const kernels::KernelTable& kernels, const std::string& context) {
  // Unlike fills, so that a byte which nobody writes is a difference.
  const Buffers want = run(c, *options.reference, 1, 0xa5, context);
  for (const int threads : kThreads)
    expect_same(run(c, kernels, threads, 0x5a, context), want, context + text(", %d threads", threads));
}

template <class Case>
void compare_random(const Options& options, const kernels::KernelTable& kernels, int count) {
  report.begin(text("%s: %s as %s does", kernels.isa, Case::kName, options.reference->isa));
  for (int i = 0; i < count; ++i) {
    Random random(options.seed * 1000003 + static_cast<uint64_t>(i));
    const Case c = Case::random(random);
    compare(c, options, kernels, text("%s %s case %d: ", kernels.isa, Case::kName, i) + c.describe());
  }
}

// Groups whose codes have a sum that floats do not hold, and groups of the sizes that kernels are compiled for.
void compare_sizes(const Options& options, const kernels::KernelTable& kernels) {
  report.begin(text("%s: long groups, and whole ones", kernels.isa));
  Random random(options.seed);
  for (const size_t size : {size_t{32}, size_t{64}, size_t{128}, size_t{256}, size_t{65535}, size_t{65537}}) {
    if (options.brief ? size > 256 : options.quick && size > 65535) continue;
    for (const int axis : {0, 1}) {
      for (const double norm : {1.0, 0.7, 2.0}) {
        QuantizeCase c;
        const size_t groups = size > 256 ? 1 : 33;
        c.grid = axis == 1 ? Grid{groups, size, groups, format_of(8)} : Grid{size, groups, size, format_of(8)};
        c.axis = axis, c.max_code = 255, c.iterations = size > 256 ? 2 : 20, c.lp_norm = norm;
        c.kappa = norm == 1.0 ? 1.0 : 1.01, c.solver = norm == 2.0 ? "joint" : nullptr;
        c.block = size > 256 ? 1 : 16;
        std::vector<float> weights(c.grid.weights());
        for (float& weight : weights) weight = random.normal() * (size > 256 ? 90.0f : 1.0f);
        c.weights = Elements(DType::f32, weights);
        compare(c, options, kernels, text("%s: ", kernels.isa) + c.describe());
      }
    }
  }
}

void find_non_finite(const Options& options, const kernels::KernelTable& kernels) {
  report.begin(text("%s: finds the first weight that is not finite", kernels.isa));
  constexpr uint32_t kBits[3][4] = {{0x7f800000u, 0xff800000u, 0x7fc00001u, 0x7f800001u},
                                    {0x7c00u, 0xfc00u, 0x7e01u, 0x7c01u},
                                    {0x7f80u, 0xff80u, 0x7fc1u, 0x7f81u}};
  for (int i = 0; i < options.cases(300, 100); ++i) {
    Random random(options.seed * 7919 + static_cast<uint64_t>(i));
    QuantizeCase c = QuantizeCase::random(random);
    if (options.quick) c.solver = nullptr;  // weights are looked at before any solver is asked
    const size_t count = c.weights.count, first = random.below(count);
    const auto bad = [&] { return random.pick(kBits[static_cast<size_t>(c.weights.dtype)]); };
    c.weights.set(first, bad());
    if (random.chance(50)) c.weights.set(first + random.below(count - first), bad());
    const std::string context = text("%s case %d: ", kernels.isa, i) + c.describe();
    for (const int threads : kThreads) {
      Buffers outputs = run(c, kernels, threads, 0xa5, context);
      double index;
      std::memcpy(&index, outputs[3].data() + 4 * sizeof(double), sizeof(index));
      check(index == static_cast<double>(first), context + text(": index %g, not %zu", index, first));
      for (const Buffer& output : outputs) check(output.guards_hold(), context + ": writes beside " + output.name());
    }
  }
}

// A NaN hides how far its group reaches. The group is refused, but has been computed by then:
// UndefinedBehaviorSanitizer finds codes that no byte holds.
void refuse_hidden_ranges(const kernels::KernelTable& kernels) {
  report.begin(text("%s: refuses groups whose range a NaN hides", kernels.isa));
  constexpr size_t kSize = 17;
  for (const float large : {454.5f, -454.5f, 1e30f, INFINITY}) {
    for (size_t at = 0; at < kSize; ++at) {
      QuantizeCase c;
      c.grid = {1, kSize, 1, format_of(8)};
      c.axis = 1, c.max_code = 15;  // without iterations, which would spread the NaN
      std::vector<float> weights(kSize, 0.5f);
      weights[at] = NAN, weights[(at + 1) % kSize] = large;
      c.weights = Elements(DType::f32, weights);
      const Buffers outputs = run(c, kernels, 1, 0xa5, text("%s: NaN at %zu, %g", kernels.isa, at, large));
      double index;
      std::memcpy(&index, outputs[3].data() + 4 * sizeof(double), sizeof(index));
      check(index >= 0, text("%s: NaN at %zu, %g: not refused", kernels.isa, at, large));
    }
  }
}

}  // namespace

void test_identity(const Options& options) {
  for (const kernels::KernelTable* kernels : options.tables) {
    compare_random<QuantizeCase>(options, *kernels, options.cases(1500, 200));
    compare_sizes(options, *kernels);
    find_non_finite(options, *kernels);
    refuse_hidden_ranges(*kernels);
    compare_random<PackCase>(options, *kernels, options.cases(400, 100));
    compare_random<UnpackCase>(options, *kernels, options.cases(400, 100));
    compare_random<DequantizeCase>(options, *kernels, options.cases(800, 150));
    compare_random<ExtremesCase>(options, *kernels, options.cases(300, 60));
    compare_random<DistanceCase>(options, *kernels, options.cases(200, 40));
    compare_random<ConvertCase>(options, *kernels, options.cases(200, 40));
  }
}

}  // namespace hqq::test
