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
    list_operations<QuantizeOp, PackOp, UnpackOp, DequantizeOp, DistanceOp, DenseLinearOp, RmsNormOp, RopeOp, AttentionOp,
                    SwigluOp, AddOp>();

inline const OperationRow* find_operation(const std::string& name) {
  for (const OperationRow& row : kOperations) {
    if (name == row.name) return &row;
  }
  return nullptr;
}

inline constexpr const char* kSequence = "sequence";

// The operation called `name`, or a sequence of such.
inline Work read_work(Args& args, const std::string& name) {
  if (const OperationRow* row = find_operation(name)) return row->parse(args);
  if (name != kSequence) {
    std::string names;
    for (const OperationRow& known : kOperations) names += std::string(known.name) + ", ";
    throw args.type_error("Expected operation to be one of " + names + kSequence + ".");
  }
  std::vector<Work> steps;
  args.for_each("steps", [&](const std::string& operation, Args& step) {
    if (operation == kSequence) throw args.type_error("Expected the steps of a sequence to be single operations.");
    steps.push_back(read_work(step, operation));
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
