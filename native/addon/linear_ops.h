#pragma once
#include "../core/operations.h"
#include "grid.h"

// Operations of QuantizedLinear: how each reads its arguments.
namespace hqq::addon {

// shape: outFeatures, inFeatures, groupSize, format, and how scales and zeros lie; then the panels' own arrays.
inline core::Panels read_panels(Args& args) {
  const Span<const int32_t> shape = args.numbers<int32_t>("shape");
  if (shape.length != 4 && shape.length != 6) throw args.range_error("Expected shape to have 4 elements, or 6.");
  const int32_t out = shape.data[0], in = shape.data[1], group = shape.data[2], format = shape.data[3];
  if (out < 1 || in < 1 || group < 1 || static_cast<size_t>(group) > kLongestGroup || in % group != 0 || format < 0 ||
      static_cast<size_t>(format) >= kFormatCount) {
    throw args.range_error("Expected shape to be outFeatures, inFeatures, groupSize and format.");
  }
  core::Panels p{};
  p.format = static_cast<Format>(format);
  p.out_features = static_cast<size_t>(out);
  p.in_features = static_cast<size_t>(in);
  p.group_size = static_cast<size_t>(group);
  const uint64_t groups = uint64_t{p.count()} * p.groups();
  p.codes = args.array<uint8_t>("codes", groups * p.group_bytes());
  if (shape.length == 6) {
    const int32_t zero = shape.data[4], half = shape.data[5];
    if (zero < -1 || zero > 255 || half < 0 || half > 1) {
      throw args.range_error("Expected shape to end with the zero of all groups, or -1, and 1 for float16, or 0.");
    }
    p.form = {half == 1, zero};
  }
  p.meta = static_cast<std::byte*>(args.floats("meta", p.form.half ? DType::f16 : DType::f32, groups * p.form.count()));
  return p;
}

struct LayOutOp {
  static constexpr const char* kName = "layOut";
  static constexpr auto kRun = core::lay_out;

  static core::LayOut parse(Args& args) {
    core::LayOut op{};
    op.panels = read_panels(args);
    op.step = args.dimension("step");
    const uint64_t groups = uint64_t{op.panels.out_features} * op.panels.groups();
    if (groups > uint64_t{op.step} * row_of(op.panels.format).fields) {
      throw args.range_error("Expected the groups to fit the packed rows.");
    }
    op.packed = args.words("packed", op.panels.format, uint64_t{op.step} * op.panels.group_size);
    op.scale = args.array<float>("scale", groups);
    op.zero = args.array<float>("zero", groups);
    return op;
  }
};

struct ExpandOp {
  static constexpr const char* kName = "expand";
  static constexpr auto kRun = core::expand;

  static core::Expand parse(Args& args) {
    const core::Panels panels = read_panels(args);
    return {panels, args.array<float>("out", uint64_t{panels.out_features} * panels.in_features)};
  }
};

struct LinearOp {
  static constexpr const char* kName = "linear";
  static constexpr auto kRun = core::linear;

  static core::Linear parse(Args& args) {
    core::Linear op{};
    const Span<float> x = args.array<float>("x");
    op.x = x.data;
    op.int8 = args.flag("int8");
    args.each("layers", kMaxLayers, [&] {
      core::Layer layer{};
      layer.panels = read_panels(args);
      const size_t batch = x.length / layer.panels.in_features;
      if (batch < 1 || batch * layer.panels.in_features != x.length || (op.batch != 0 && op.batch != batch)) {
        throw args.range_error("Expected x to have rows of inFeatures elements.");
      }
      op.batch = batch;
      layer.bias = args.optional_floats("bias", layer.panels.out_features);
      layer.out = args.array<float>("out", uint64_t{batch} * layer.panels.out_features);
      op.layers.push_back(layer);
    });
    return op;
  }

  static constexpr uint32_t kMaxLayers = 1024;
};

struct LinearTiledOp {
  static constexpr const char* kName = "linearTiled";
  static constexpr auto kRun = core::linear_tiled;

  static core::LinearTiled parse(Args& args) {
    core::LinearTiled op{};
    static_cast<core::Quantized&>(op) = read_quantized(args);
    op.in_features = args.dimension("inFeatures");
    op.out_features = args.dimension("outFeatures");
    const Span<float> x = args.array<float>("x");
    op.batch = x.length / op.in_features;
    if (uint64_t{op.in_features} * op.out_features != uint64_t{op.rows} * op.cols || op.batch < 1 ||
        op.batch * op.in_features != x.length) {
      throw args.range_error("Expected x to have rows of inFeatures elements, and the weights to be a matrix of them.");
    }
    op.x = x.data;
    op.bias = args.optional_floats("bias", op.out_features);
    op.out = args.array<float>("out", uint64_t{op.batch} * op.out_features);
    return op;
  }
};

}  // namespace hqq::addon
