#pragma once
#include <array>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "../core/operations.h"
#include "../kernels/table.h"
#include "args.h"
#include "layer_ops.h"

// The operations of binding.d.ts: how each reads its arguments, and what it runs.
namespace hqq::addon {

// An operation whose arguments were read: plain memory, free of JavaScript, to be run on any thread.
struct Work {
  int threads;
  std::function<core::Status(const core::Context&)> run;
};

namespace detail {

// A grouped matrix, how its codes are packed, and where the groups' scales and zeros are.
struct Grid {
  size_t rows, cols, step;
  Format format;

  explicit Grid(const Args& args)
      : rows(args.dimension("rows")),
        cols(args.dimension("cols")),
        step(args.dimension("step")),
        format(args.format("format")) {
    if (rows > uint64_t{step} * row_of(format).fields) {
      throw args.range_error("Expected " + std::to_string(rows) + " rows to fit " + std::to_string(step) +
                             " packed rows of " + std::to_string(row_of(format).fields) + " fields.");
    }
  }

  uint64_t weights() const { return uint64_t{rows} * cols; }
  uint64_t words() const { return uint64_t{step} * cols; }
  uint64_t groups(int axis) const { return axis == 1 ? rows : cols; }
};

// shape: outFeatures, inFeatures, groupSize, format; then the panels' own arrays.
inline core::Panels read_panels(Args& args) {
  const Span<int32_t> shape = args.array<int32_t>("shape");
  if (shape.length != 4) throw args.range_error("Expected shape to have 4 elements.");
  const int32_t out = shape.data[0], in = shape.data[1], group = shape.data[2], format = shape.data[3];
  constexpr int32_t kLongestGroup = 1 << 16;  // sums of its products fit 32 bits
  if (out < 1 || in < 1 || group < 1 || group > kLongestGroup || in % group != 0 || format < 0 || format >= kFormatCount) {
    throw args.range_error("Expected shape to be outFeatures, inFeatures, groupSize and format.");
  }
  core::Panels p{};
  p.format = static_cast<Format>(format);
  p.out_features = static_cast<size_t>(out);
  p.in_features = static_cast<size_t>(in);
  p.group_size = static_cast<size_t>(group);
  const uint64_t groups = uint64_t{p.count()} * p.groups();
  p.codes = args.array<uint8_t>("codes", groups * p.group_bytes());
  p.meta = args.array<float>("meta", groups * 2 * kPanel);
  return p;
}

}  // namespace detail

struct QuantizeOp {
  static constexpr const char* kName = "quantize";
  static constexpr auto kRun = core::quantize;

  static core::Quantize parse(Args& args) {
    const detail::Grid grid(args);
    core::Quantize op{};
    op.rows = grid.rows;
    op.cols = grid.cols;
    op.step = grid.step;
    op.format = grid.format;
    op.dtype = args.dtype("dtype");
    op.weights = args.floats("weights", op.dtype, grid.weights());
    op.axis = static_cast<int>(args.integer("axis", 0, 1));
    op.max_code = static_cast<float>(args.integer("maxCode", 1, kMaxCode));
    const Span<float> schedule = args.array<float>("schedule");
    if (schedule.length % 2 != 0 || schedule.length / 2 > kMaxIterations) {
      throw args.range_error("Expected schedule to have two numbers for each of at most " +
                             std::to_string(kMaxIterations) + " iterations, got " + std::to_string(schedule.length) +
                             ".");
    }
    op.schedule = schedule.data;
    op.iterations = static_cast<int>(schedule.length / 2);
    op.lp_norm = static_cast<float>(args.number("lpNorm"));
    op.round_zero = args.flag("roundZero");
    op.reference_guards = args.flag("referenceGuards");
    op.block = args.integer("block", 1, kernels::kMaxBlock);
    op.meta_dtype = args.dtype("metaDtype");
    op.packed = args.words("packed", op.format, grid.words());
    op.scale = args.array<float>("scale", grid.groups(op.axis));
    op.zero = args.array<float>("zero", grid.groups(op.axis));
    op.stats = args.array<double>("stats", 5);
    return op;
  }

  static constexpr uint32_t kMaxCode = 255;  // codes are bytes
  static constexpr uint32_t kMaxIterations = 1u << 20;
};

struct PackOp {
  static constexpr const char* kName = "pack";
  static constexpr auto kRun = core::pack;

  static core::Pack parse(Args& args) {
    const detail::Grid grid(args);
    core::Pack op{};
    op.rows = grid.rows;
    op.cols = grid.cols;
    op.step = grid.step;
    op.format = grid.format;
    op.codes = args.array<uint8_t>("codes", grid.weights());
    op.packed = args.words("packed", op.format, grid.words());
    return op;
  }
};

struct UnpackOp {
  static constexpr const char* kName = "unpack";
  static constexpr auto kRun = core::unpack;
  static core::Pack parse(Args& args) { return PackOp::parse(args); }
};

struct DequantizeOp {
  static constexpr const char* kName = "dequantize";
  static constexpr auto kRun = core::dequantize;

  static core::Dequantize parse(Args& args) {
    const detail::Grid grid(args);
    core::Dequantize op{};
    op.rows = grid.rows;
    op.cols = grid.cols;
    op.step = grid.step;
    op.format = grid.format;
    op.packed = args.words("packed", op.format, grid.words());
    op.axis = static_cast<int>(args.integer("axis", 0, 1));
    op.scale = args.array<float>("scale", grid.groups(op.axis));
    op.zero = args.array<float>("zero", grid.groups(op.axis));
    op.dtype = args.dtype("dtype");
    op.round_each = args.flag("roundEach");
    op.out = args.floats("out", op.dtype, grid.weights());
    return op;
  }
};

struct DistanceOp {
  static constexpr const char* kName = "distance";
  static constexpr auto kRun = core::distance;

  static core::Distance parse(Args& args) {
    core::Distance op{};
    op.a_dtype = args.dtype("aDtype");
    op.b_dtype = args.dtype("bDtype");
    const Span<void> a = args.floats("a", op.a_dtype);
    op.a = a.data;
    op.count = a.length;
    op.b = args.floats("b", op.b_dtype, a.length);
    op.stats = args.array<double>("stats", 4);
    return op;
  }
};

struct LayOutOp {
  static constexpr const char* kName = "layOut";
  static constexpr auto kRun = core::lay_out;

  static core::LayOut parse(Args& args) {
    core::LayOut op{};
    op.panels = detail::read_panels(args);
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
    const core::Panels panels = detail::read_panels(args);
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
      layer.panels = detail::read_panels(args);
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
    const detail::Grid grid(args);
    core::LinearTiled op{};
    op.rows = grid.rows;
    op.cols = grid.cols;
    op.step = grid.step;
    op.format = grid.format;
    op.packed = args.words("packed", op.format, grid.words());
    op.axis = static_cast<int>(args.integer("axis", 0, 1));
    op.scale = args.array<float>("scale", grid.groups(op.axis));
    op.zero = args.array<float>("zero", grid.groups(op.axis));
    op.in_features = args.dimension("inFeatures");
    op.out_features = args.dimension("outFeatures");
    const Span<float> x = args.array<float>("x");
    op.batch = x.length / op.in_features;
    if (uint64_t{op.in_features} * op.out_features != grid.weights() || op.batch < 1 ||
        op.batch * op.in_features != x.length) {
      throw args.range_error("Expected x to have rows of inFeatures elements, and the weights to be a matrix of them.");
    }
    op.x = x.data;
    op.bias = args.optional_floats("bias", op.out_features);
    op.out = args.array<float>("out", uint64_t{op.batch} * op.out_features);
    return op;
  }
};

template <class Op>
Work parse_work(Args& args) {
  return {args.threads(), [op = Op::parse(args)](const core::Context& context) { return Op::kRun(context, op); }};
}

struct OperationRow {
  const char* name;
  Work (*parse)(Args&);
};

// Every operation, once. Adding one: its struct above, its name here.
template <class... Ops>
constexpr std::array<OperationRow, sizeof...(Ops)> list_operations() {
  return {{{Ops::kName, parse_work<Ops>}...}};
}
inline constexpr auto kOperations =
    list_operations<QuantizeOp, PackOp, UnpackOp, DequantizeOp, DistanceOp, LayOutOp, ExpandOp, LinearOp, LinearTiledOp,
                    DenseLinearOp, RmsNormOp, RopeOp, AttentionOp, SwigluOp, AddOp>();

inline const OperationRow* find_operation(const std::string& name) {
  for (const OperationRow& row : kOperations) {
    if (name == row.name) return &row;
  }
  return nullptr;
}

inline constexpr const char* kSequence = "sequence";
inline constexpr uint32_t kMaxSteps = 1u << 20;

// The operation called `name`, or a sequence of such.
inline Work read_work(Args& args, const std::string& name) {
  if (const OperationRow* row = find_operation(name)) return row->parse(args);
  if (name != kSequence) {
    std::string names;
    for (const OperationRow& known : kOperations) names += std::string(known.name) + ", ";
    throw args.type_error("Expected operation to be one of " + names + kSequence + ".");
  }
  std::vector<Work> steps;
  args.each("steps", kMaxSteps, [&] {
    const std::string operation = args.text("operation");
    if (operation == kSequence) throw args.type_error("Expected the steps of a sequence to be single operations.");
    args.within("args", [&] { steps.push_back(read_work(args, operation)); });
  });
  return {1, [steps = std::move(steps)](const core::Context& context) {
            for (const Work& step : steps) {
              const auto status = step.run(core::Context{context.kernels, step.threads, context.cancel});
              if (status != core::Status::ok) return status;
            }
            return core::Status::ok;
          }};
}

}  // namespace hqq::addon
