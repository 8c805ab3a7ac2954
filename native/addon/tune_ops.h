#pragma once
#include "../core/gradients.h"
#include "args.h"

// Operations of tuning: how each reads its arguments.
namespace hqq::addon {

struct DenseLinearGradientOp {
  static constexpr const char* kName = "denseLinearGradient";
  static constexpr auto kRun = core::dense_linear_gradient;

  static core::DenseLinearGradient parse(Args& args) {
    core::DenseLinearGradient op{};
    op.batch = args.dimension("batch");
    op.in_features = args.dimension("inFeatures");
    op.out_features = args.dimension("outFeatures");
    const uint64_t inputs = args.product({op.batch, op.in_features});
    const uint64_t weights = args.product({op.out_features, op.in_features});
    op.gradient = args.array<float>("gradient", args.product({op.batch, op.out_features}));
    op.x_gradient = args.optional_array<float>("xGradient", inputs);
    op.weight_gradient = args.optional_array<float>("weightGradient", weights);
    if (op.x_gradient != nullptr) op.weights = args.array<float>("weights", weights);
    if (op.weight_gradient != nullptr) op.x = args.array<float>("x", inputs);
    return op;
  }
};

// What is `optional` may be empty.
struct FakeArgs {
  Args& args;
  size_t rows = args.dimension("rows"), cols = args.dimension("cols");
  int axis = static_cast<int>(args.integer("axis", 0, 1));
  uint64_t weights = args.product({rows, cols});
  size_t groups = axis == 1 ? rows : cols;

  float* of_weights(const char* name) { return args.array<float>(name, weights); }
  float* of_groups(const char* name) { return args.array<float>(name, groups); }
  template <class T = float>
  T* optional_of_weights(const char* name) {
    return args.optional_array<T>(name, weights);
  }
  float* optional_of_groups(const char* name) { return args.optional_array<float>(name, groups); }
  float number(const char* name) const { return static_cast<float>(args.number(name)); }

  kernels::FakeGroups parse(bool has_weights = true) {
    const auto max_code = static_cast<float>(args.integer("maxCode", 1, 255));
    const float* const values = has_weights ? of_weights("weights") : nullptr;
    const float* const offsets = has_weights ? optional_of_weights("offsets") : nullptr;
    return {rows, cols, axis, max_code, values, offsets, of_groups("scale"), of_groups("zero")};
  }
};

struct FakeQuantizeOp {
  static constexpr const char* kName = "fakeQuantize";
  static constexpr auto kRun = core::fake_quantize;

  static core::FakeQuantize parse(Args& args) {
    FakeArgs of{args};
    return {of.parse(), {of.optional_of_weights("out"), of.optional_of_weights<uint8_t>("codes")}};
  }
};

struct FakeQuantizeGradientOp {
  static constexpr const char* kName = "fakeQuantizeGradient";
  static constexpr auto kRun = core::fake_quantize_gradient;

  static core::FakeQuantizeGradient parse(Args& args) {
    FakeArgs of{args};
    const float* const gradient = of.of_weights("gradient");
    const auto* const codes = of.optional_of_weights<uint8_t>("codes");
    const bool given = codes != nullptr;
    return {of.parse(!given),
            {gradient, codes, given ? nullptr : of.optional_of_weights("weightGradient"),
             given ? nullptr : of.optional_of_weights("offsetGradient"), of.optional_of_groups("scaleGradient"),
             of.optional_of_groups("zeroGradient")}};
  }
};

struct FakeQuantizeStepOp {
  static constexpr const char* kName = "fakeQuantizeStep";
  static constexpr auto kRun = core::fake_quantize_step;

  static core::FakeQuantizeStep parse(Args& args) {
    FakeArgs of{args};
    const kernels::FakeGroups groups = of.parse();
    kernels::FakeStep step{};
    step.zero_kind = static_cast<kernels::ZeroKind>(
        args.integer("zeroKind", 0, static_cast<uint32_t>(std::size(kernels::kZeroKinds)) - 1));
    step.gradient = of.of_weights("gradient");
    step.offsets = of.of_weights("offsets");
    step.out = of.of_weights("out");
    step.start_scale = of.of_groups("startScale"), step.start_zero = of.of_groups("startZero");
    step.factor = of.of_groups("factor"), step.shift = of.of_groups("shift");
    step.scale = of.of_groups("scale"), step.zero = of.of_groups("zero");
    step.offset_step = of.number("offsetStep");
    step.factor_step = of.number("factorStep"), step.factor_range = of.number("factorRange");
    step.shift_step = of.number("shiftStep"), step.shift_range = of.number("shiftRange");
    return {groups, step};
  }
};

}  // namespace hqq::addon
