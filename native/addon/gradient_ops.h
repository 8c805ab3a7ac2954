#pragma once
#include "../core/layer-gradients.h"
#include "args.h"

// Gradients of layers of language models: how each reads its arguments.
namespace hqq::addon {

struct RmsNormGradientOp {
  static constexpr const char* kName = "rmsNormGradient";
  static constexpr auto kRun = core::rms_norm_gradient;

  static core::NormGradient parse(Args& args) {
    core::NormGradient op{};
    op.rows = args.dimension("rows");
    op.cols = args.dimension("cols");
    op.epsilon = static_cast<float>(args.number("epsilon"));
    op.x = args.array<float>("x", args.product({op.rows, op.cols}));
    op.weight = args.array<float>("weight", op.cols);
    op.gradient = args.array<float>("gradient", args.product({op.rows, op.cols}));
    op.x_gradient = args.array<float>("xGradient", args.product({op.rows, op.cols}));
    op.adds = args.flag("adds");
    return op;
  }
};

struct AttentionGradientOp {
  static constexpr const char* kName = "attentionGradient";
  static constexpr auto kRun = core::attention_gradient;

  static core::AttentionGradient parse(Args& args) {
    core::AttentionGradient op{};
    op.rows = args.dimension("rows");
    op.heads = args.dimension("heads");
    op.kv_heads = args.dimension("kvHeads");
    if (op.heads % op.kv_heads != 0) throw args.range_error("Expected kvHeads to divide heads.");
    op.head_dim = args.dimension("headDim");
    op.window = args.integer("window", 0, kMaxWindow);
    op.causal = args.flag("causal");
    op.scale = static_cast<float>(args.number("scale"));
    op.softcap = static_cast<float>(args.number("softcap"));
    const uint64_t queries = args.product({op.rows, op.heads, op.head_dim});
    const uint64_t keys = args.product({op.rows, op.kv_heads, op.head_dim});
    op.q = args.array<float>("q", queries);
    op.k = args.array<float>("k", keys);
    op.v = args.array<float>("v", keys);
    op.gradient = args.array<float>("gradient", queries);
    op.q_gradient = args.array<float>("qGradient", queries);
    op.k_gradient = args.array<float>("kGradient", keys);
    op.v_gradient = args.array<float>("vGradient", keys);
    return op;
  }

  static constexpr uint32_t kMaxWindow = 1u << 30;
};

inline core::GatedGradient parse_gated_gradient(Args& args) {
  const Span<float> gate = args.array<float>("gate");
  return {gate.length,
          {.gate = gate.data,
           .up = args.array<float>("up", gate.length),
           .gradient = args.array<float>("gradient", gate.length),
           .gate_gradient = args.array<float>("gateGradient", gate.length),
           .up_gradient = args.array<float>("upGradient", gate.length)}};
}

struct SwigluGradientOp {
  static constexpr const char* kName = "swigluGradient";
  static constexpr auto kRun = core::swiglu_gradient;
  static core::GatedGradient parse(Args& args) { return parse_gated_gradient(args); }
};

struct GegluGradientOp {
  static constexpr const char* kName = "gegluGradient";
  static constexpr auto kRun = core::geglu_gradient;
  static core::GatedGradient parse(Args& args) { return parse_gated_gradient(args); }
};

struct ScaleGradientOp {
  static constexpr const char* kName = "scaleGradient";
  static constexpr auto kRun = core::scale_gradient;

  static core::ScaleGradient parse(Args& args) {
    const Span<float> out = args.array<float>("out");
    return {out.length, static_cast<float>(args.number("factor")), static_cast<float>(args.number("softcap")), out.data,
            args.array<float>("gradient", out.length)};
  }
};

struct ColumnsGradientOp {
  static constexpr const char* kName = "columnsGradient";
  static constexpr auto kRun = core::columns_gradient;

  static core::ColumnsGradient parse(Args& args) {
    core::ColumnsGradient op{};
    op.rows = args.dimension("rows");
    op.width = args.dimension("width");
    op.cols = args.dimension("cols");
    if (op.cols > op.width) throw args.range_error("Expected cols to be at most width.");
    op.from = args.integer("from", 0, static_cast<uint32_t>(op.width - op.cols));
    op.gradient = args.array<float>("gradient", args.product({op.rows, op.cols}));
    op.x_gradient = args.array<float>("xGradient", args.product({op.rows, op.width}));
    return op;
  }
};

struct ClearOp {
  static constexpr const char* kName = "clear";
  static constexpr auto kRun = core::clear;

  static core::Clear parse(Args& args) {
    const Span<float> x = args.array<float>("x");
    return {x.length, x.data};
  }
};

}  // namespace hqq::addon
