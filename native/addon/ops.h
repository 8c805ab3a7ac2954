#pragma once
#include <array>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "../core/operations.h"
#include "../core/parallel.h"
#include "args.h"
#include "block_ops.h"
#include "encoder_ops.h"
#include "gradient_ops.h"
#include "layer_ops.h"
#include "linear_ops.h"
#include "quantize_ops.h"
#include "tune_ops.h"

// The operations of binding.d.ts by name; the other headers say how each reads its arguments.
namespace hqq::addon {

// An operation whose arguments were read: plain memory, free of JavaScript, to be run on any thread.
struct Work {
  int threads;
  std::function<core::Status(const core::Context&)> run;
};

template <class Op>
Work parse_work(Args& args) {
  return {args.threads(), [op = Op::parse(args)](const core::Context& context) { return Op::kRun(context, op); }};
}

struct OperationRow {
  const char* name;
  Work (*parse)(Args&);
};

// Every operation, once. Adding one: its struct in one of the headers, its name here.
template <class... Ops>
constexpr std::array<OperationRow, sizeof...(Ops)> list_operations() {
  return {{{Ops::kName, parse_work<Ops>}...}};
}
inline constexpr auto kOperations =
    list_operations<QuantizeOp, EncodeOp, ExtremesOp, PackOp, UnpackOp, PackWordsOp, DequantizeOp, DistanceOp,
                    ConvertOp, TurnOp, LayOutOp, ExpandOp, LinearOp, LinearTiledOp, DenseLinearOp, RmsNormOp,
                    LayerNormOp, GeluOp, GeluTanhOp, ReluOp, RopeOp, AttentionOp, SwigluOp, GegluOp, ScaleOp, ColumnsOp,
                    AddOp, LargePagesOp, TrimOp, EncodeBlocksOp, DecodeBlocksOp, SplitBlocksOp, DenseLinearGradientOp,
                    FakeQuantizeOp, FakeQuantizeGradientOp, FakeQuantizeStepOp, RmsNormGradientOp, AttentionGradientOp,
                    SwigluGradientOp, GegluGradientOp, ScaleGradientOp, ColumnsGradientOp, LayerNormGradientOp,
                    GeluGradientOp, GeluTanhGradientOp, ReluGradientOp, ClearOp>();

inline const OperationRow* find_operation(const std::string& name) {
  for (const OperationRow& row : kOperations) {
    if (name == row.name) return &row;
  }
  return nullptr;
}

inline constexpr const char *kSequence = "sequence", *kPrepared = "prepared";
inline constexpr uint32_t kMaxSteps = 1u << 20;

// Work that was read before: prepared.h.
Work read_prepared(Args& args);

// The operation called `name`, a sequence of such, or a sequence that was read before.
inline Work read_work(Args& args, const std::string& name) {
  if (const OperationRow* row = find_operation(name)) return row->parse(args);
  if (name == kPrepared) return read_prepared(args);
  if (name != kSequence) {
    std::string names;
    for (const OperationRow& known : kOperations) names += std::string(known.name) + ", ";
    throw args.type_error("Expected operation to be one of " + names + kPrepared + ", " + kSequence + ".");
  }
  std::vector<Work> steps;
  args.each("steps", kMaxSteps, [&] {
    const std::string operation = args.text("operation");
    if (operation == kSequence) throw args.type_error("Expected the steps of a sequence to be single operations.");
    args.within("args", [&] { steps.push_back(read_work(args, operation)); });
  });
  return {1, [steps = std::move(steps)](const core::Context& context) {
            const core::Following following;
            for (const Work& step : steps) {
              const auto status = step.run(core::Context{context.kernels, step.threads, context.cancel});
              if (status != core::Status::ok) return status;
            }
            return core::Status::ok;
          }};
}

}  // namespace hqq::addon
