#pragma once
#include "../core/encoder-layers.h"
#include "gradient_ops.h"

// Layers of encoders, and their gradients: how each reads its arguments.
namespace hqq::addon {

struct LayerNormOp {
  static constexpr const char* kName = "layerNorm";
  static constexpr auto kRun = core::layer_norm;

  static core::LayerNorm parse(Args& args) {
    core::LayerNorm op{};
    op.rows = args.dimension("rows");
    op.cols = args.dimension("cols");
    op.epsilon = static_cast<float>(args.number("epsilon"));
    op.x = args.array<float>("x", args.product({op.rows, op.cols}));
    op.weight = args.array<float>("weight", op.cols);
    op.bias = args.array<float>("bias", op.cols);
    op.out = args.array<float>("out", args.product({op.rows, op.cols}));
    return op;
  }
};

inline core::Activation parse_activation(Args& args) {
  const Span<float> x = args.array<float>("x");
  return {x.length, x.data};
}

struct GeluOp {
  static constexpr const char* kName = "gelu";
  static constexpr auto kRun = core::gelu;
  static core::Activation parse(Args& args) { return parse_activation(args); }
};

struct GeluTanhOp {
  static constexpr const char* kName = "geluTanh";
  static constexpr auto kRun = core::gelu_tanh;
  static core::Activation parse(Args& args) { return parse_activation(args); }
};

struct ReluOp {
  static constexpr const char* kName = "relu";
  static constexpr auto kRun = core::relu;
  static core::Activation parse(Args& args) { return parse_activation(args); }
};

struct LayerNormGradientOp {
  static constexpr const char* kName = "layerNormGradient";
  static constexpr auto kRun = core::layer_norm_gradient;
  static core::NormGradient parse(Args& args) { return RmsNormGradientOp::parse(args); }  // of the same arrays
};

inline core::ActivationGradient parse_activation_gradient(Args& args) {
  const Span<float> x = args.array<float>("x");
  return {x.length, x.data, args.array<float>("gradient", x.length)};
}

struct GeluGradientOp {
  static constexpr const char* kName = "geluGradient";
  static constexpr auto kRun = core::gelu_gradient;
  static core::ActivationGradient parse(Args& args) { return parse_activation_gradient(args); }
};

struct GeluTanhGradientOp {
  static constexpr const char* kName = "geluTanhGradient";
  static constexpr auto kRun = core::gelu_tanh_gradient;
  static core::ActivationGradient parse(Args& args) { return parse_activation_gradient(args); }
};

struct ReluGradientOp {
  static constexpr const char* kName = "reluGradient";
  static constexpr auto kRun = core::relu_gradient;
  static core::ActivationGradient parse(Args& args) { return parse_activation_gradient(args); }
};

}  // namespace hqq::addon
