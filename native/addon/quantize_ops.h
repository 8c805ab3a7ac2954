#pragma once
#include <string>

#include "../core/operations.h"
#include "../kernels/table.h"
#include "grid.h"

// Operations on weight matrices: how each reads its arguments.
namespace hqq::addon {

struct QuantizeOp {
  static constexpr const char* kName = "quantize";
  static constexpr auto kRun = core::quantize;

  static core::Quantize parse(Args& args) {
    const Grid grid(args);
    core::Quantize op = parse_codes(args, grid);
    op.solver = args.integer("solver", 0, static_cast<uint32_t>(kernels::kScalar.solvers.size()) - 1);
    read_options(args, kernels::kScalar.solvers[op.solver], op.options);
    if (args.has("importance"))
      args.within("importance", [&] { op.importance = read_importance(args, grid.groups(op.axis)); });
    return op;
  }

  // What has to do with weights and codes, whatever finds the scale and zero of these.
  static core::Quantize parse_codes(Args& args, const Grid& grid) {
    core::Quantize op{};
    op.rows = grid.rows;
    op.cols = grid.cols;
    op.step = grid.step;
    op.format = grid.format;
    op.dtype = args.dtype("dtype");
    op.weights = args.floats("weights", op.dtype, grid.weights());
    op.axis = static_cast<int>(args.integer("axis", 0, 1));
    op.options.max_code = static_cast<float>(args.integer("maxCode", 1, kMaxCode));
    op.block = args.integer("block", 1, kernels::kMaxBlock);
    op.packed = args.words("packed", op.format, grid.words());
    op.scale = args.array<float>("scale", grid.groups(op.axis));
    op.zero = args.array<float>("zero", grid.groups(op.axis));
    op.stats = args.array<double>("stats", 5);
    return op;
  }

  static void read_options(Args& args, const kernels::Solver& solver, kernels::SolveOptions& options) {
    options.zero_kind = static_cast<kernels::ZeroKind>(args.integer("zeroKind", 0, std::size(kernels::kZeroKinds) - 1));
    options.reference_guards = args.flag("referenceGuards");
    options.meta_dtype = args.dtype("metaDtype");
    options.scale_dtype = args.dtype("scaleDtype");
    const Span<float> parameters = args.array<float>("parameters");
    if (!solver.takes(parameters.length)) {
      throw args.range_error(std::string("Expected parameters to be those of solver ") + solver.name + ", got " +
                             std::to_string(parameters.length) + " numbers.");
    }
    options.parameters = parameters.data;
    options.parameter_count = parameters.length;
  }

  static core::Importance read_importance(Args& args, uint64_t groups) {
    core::Importance importance{};
    const Span<float> values = args.array<float>("values");
    if (values.length < 1) throw args.range_error("Expected values to have a number for each input feature.");
    importance.values = values.data;
    importance.features = values.length;
    importance.starts = args.array<int32_t>("starts", groups);
    importance.stride = args.dimension("stride");
    return importance;
  }

  static constexpr uint32_t kMaxCode = 255;  // codes are bytes
};

struct EncodeOp {
  static constexpr const char* kName = "encode";
  static constexpr auto kRun = core::encode;
  static core::Quantize parse(Args& args) { return QuantizeOp::parse_codes(args, Grid(args)); }
};

struct ExtremesOp {
  static constexpr const char* kName = "extremes";
  static constexpr auto kRun = core::extremes;

  static core::Extremes parse(Args& args) {
    core::Extremes op{};
    op.rows = args.dimension("rows");
    op.cols = args.dimension("cols");
    op.dtype = args.dtype("dtype");
    op.weights = args.floats("weights", op.dtype, uint64_t{op.rows} * op.cols);
    op.axis = static_cast<int>(args.integer("axis", 0, 1));
    const size_t groups = op.axis == 1 ? op.rows : op.cols;
    op.least = args.array<float>("least", groups);
    op.most = args.array<float>("most", groups);
    return op;
  }
};

struct PackOp {
  static constexpr const char* kName = "pack";
  static constexpr auto kRun = core::pack;

  static core::Pack parse(Args& args) {
    const Grid grid(args);
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

struct PackWordsOp {
  static constexpr const char* kName = "packWords";
  static constexpr auto kRun = core::pack_words;

  static core::PackWords parse(Args& args) {
    core::PackWords op{};
    op.rows = args.dimension("rows");
    op.cols = args.dimension("cols");
    op.bits = static_cast<unsigned>(args.integer("bits", 1, 8));
    op.codes = args.array<uint8_t>("codes", uint64_t{op.rows} * op.cols);
    const Span<const int32_t> order = args.numbers<int32_t>("order");
    op.across = order.length > 0;
    if (op.across && (order.length != 8 || op.bits != 4 || op.rows % 8 != 0))
      throw args.range_error("Expected order to be empty, or of the eight rows that words of 4-bit codes have.");
    for (size_t i = 0; i < order.length; ++i) {
      if (order.data[i] < 0 || order.data[i] > 7) throw args.range_error("Expected order to have numbers from 0 to 7.");
      op.order[i] = static_cast<uint8_t>(order.data[i]);
    }
    op.turned = args.flag("turned");
    op.step = args.dimension("step");
    const auto [height, width] = op.turned ? std::pair(op.width(), op.lines()) : std::pair(op.lines(), op.width());
    const Span<int32_t> words = args.array<int32_t>("words");
    if (op.step < width || words.length < uint64_t{height - 1} * op.step + width)
      throw args.range_error("Expected words to have room for what is packed.");
    op.words = words.data;
    return op;
  }
};

struct DequantizeOp {
  static constexpr const char* kName = "dequantize";
  static constexpr auto kRun = core::dequantize;

  static core::Dequantize parse(Args& args) {
    core::Dequantize op{};
    static_cast<core::Quantized&>(op) = read_quantized(args);
    op.dtype = args.dtype("dtype");
    op.round_each = args.flag("roundEach");
    op.out = args.floats("out", op.dtype, uint64_t{op.rows} * op.cols);
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

struct ConvertOp {
  static constexpr const char* kName = "convert";
  static constexpr auto kRun = core::convert;

  static core::Convert parse(Args& args) {
    core::Convert op{};
    op.from_dtype = args.dtype("fromDtype");
    op.to_dtype = args.dtype("toDtype");
    const Span<void> from = args.floats("from", op.from_dtype);
    op.from = from.data;
    op.count = from.length;
    op.to = args.floats("to", op.to_dtype, from.length);
    return op;
  }
};

struct TurnOp {
  static constexpr const char* kName = "turn";
  static constexpr auto kRun = core::turn;

  static core::Turn parse(Args& args) {
    core::Turn op{};
    op.rows = args.dimension("rows");
    op.stride = args.dimension("stride");
    op.cols = args.integer("cols", 1, static_cast<uint32_t>(op.stride));
    op.first = args.integer("first", 0, static_cast<uint32_t>(op.stride - op.cols));
    op.dtype = args.dtype("dtype");
    op.from = args.floats("from", op.dtype, uint64_t{op.rows} * op.stride);
    op.to = args.floats("to", op.dtype, uint64_t{op.rows} * op.cols);
    return op;
  }
};

}  // namespace hqq::addon
