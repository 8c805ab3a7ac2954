#pragma once
#include "../core/layers.h"
#include "args.h"

// Operations of language models: how each reads its arguments.
namespace hqq::addon {

struct DenseLinearOp {
  static constexpr const char* kName = "denseLinear";
  static constexpr auto kRun = core::dense_linear;

  static core::DenseLinear parse(Args& args) {
    core::DenseLinear op{};
    op.batch = args.dimension("batch");
    op.in_features = args.dimension("inFeatures");
    op.out_features = args.dimension("outFeatures");
    op.x = args.array<float>("x", args.product({op.batch, op.in_features}));
    op.weights = args.array<float>("weights", args.product({op.out_features, op.in_features}));
    op.bias = args.optional_floats("bias", op.out_features);
    op.out = args.array<float>("out", args.product({op.batch, op.out_features}));
    return op;
  }
};

struct RmsNormOp {
  static constexpr const char* kName = "rmsNorm";
  static constexpr auto kRun = core::rms_norm;

  static core::RmsNorm parse(Args& args) {
    core::RmsNorm op{};
    op.rows = args.dimension("rows");
    op.cols = args.dimension("cols");
    op.epsilon = static_cast<float>(args.number("epsilon"));
    op.x = args.array<float>("x", args.product({op.rows, op.cols}));
    op.weight = args.array<float>("weight", op.cols);
    op.out = args.array<float>("out", args.product({op.rows, op.cols}));
    return op;
  }
};

struct RopeOp {
  static constexpr const char* kName = "rope";
  static constexpr auto kRun = core::rope;

  static core::Rope parse(Args& args) {
    core::Rope op{};
    op.rows = args.dimension("rows");
    op.heads = args.dimension("heads");
    op.head_dim = args.dimension("headDim");
    op.turned = args.dimension("turned");
    if (op.turned % 2 != 0 || op.turned > op.head_dim)
      throw args.range_error("Expected turned to be even, and at most headDim.");
    op.cos = args.array<float>("cos", args.product({op.rows, op.turned / 2}));
    op.sin = args.array<float>("sin", args.product({op.rows, op.turned / 2}));
    op.x = args.array<float>("x", args.product({op.rows, op.heads, op.head_dim}));
    return op;
  }
};

struct AttentionOp {
  static constexpr const char* kName = "attention";
  static constexpr auto kRun = core::attention;

  static core::Attention parse(Args& args) {
    core::Attention op{};
    op.rows = args.dimension("rows");
    op.heads = args.dimension("heads");
    op.kv_heads = args.dimension("kvHeads");
    if (op.heads % op.kv_heads != 0) throw args.range_error("Expected kvHeads to divide heads.");
    op.head_dim = args.dimension("headDim");
    op.window = args.integer("window", 0, kMaxPositions);
    op.type = static_cast<CacheType>(args.integer("cacheType", 0, kCacheTypes - 1));
    args.each("segments", kMaxSegments, [&] { op.segments.push_back(parse_segment(args, op)); });
    op.positions = args.array<int32_t>("positions", op.rows);
    op.scale = static_cast<float>(args.number("scale"));
    op.softcap = static_cast<float>(args.number("softcap"));
    op.q = args.array<float>("q", args.product({op.rows, op.heads, op.head_dim}));
    op.k = args.array<float>("k", args.product({op.rows, op.kv_heads, op.head_dim}));
    op.v = args.array<float>("v", args.product({op.rows, op.kv_heads, op.head_dim}));
    op.out = args.array<float>("out", args.product({op.rows, op.heads, op.head_dim}));
    return op;
  }

  static core::CacheSegment parse_segment(Args& args, const core::Attention& op) {
    core::CacheSegment segment{};
    segment.capacity = args.integer("capacity", 1, kMaxPositions);
    if (segment.capacity % kernels::kLanes != 0) {
      throw args.range_error("Expected capacity to be a multiple of " + std::to_string(kernels::kLanes) + ".");
    }
    const uint64_t elements = args.product({segment.capacity, op.kv_heads, op.head_dim});
    segment.keys = args.cached("keys", op.type, elements);
    segment.values = args.cached("values", op.type, elements);
    if (op.type != CacheType::u8) return segment;
    const uint64_t meta = args.product({segment.capacity, op.kv_heads, cache_groups(op.type, op.head_dim), 2});
    segment.key_meta = args.array<float>("keyMeta", meta);
    segment.value_meta = args.array<float>("valueMeta", meta);
    return segment;
  }

  static constexpr uint32_t kMaxPositions = 1u << 30, kMaxSegments = 1u << 16;
};

inline core::Gated parse_gated(Args& args) {
  const Span<float> gate = args.array<float>("gate");
  return {gate.length, gate.data, args.array<float>("up", gate.length), args.array<float>("out", gate.length)};
}

struct SwigluOp {
  static constexpr const char* kName = "swiglu";
  static constexpr auto kRun = core::swiglu;
  static core::Gated parse(Args& args) { return parse_gated(args); }
};

struct GegluOp {
  static constexpr const char* kName = "geglu";
  static constexpr auto kRun = core::geglu;
  static core::Gated parse(Args& args) { return parse_gated(args); }
};

struct ScaleOp {
  static constexpr const char* kName = "scale";
  static constexpr auto kRun = core::scale;

  static core::Scale parse(Args& args) {
    const Span<float> x = args.array<float>("x");
    return {x.length, static_cast<float>(args.number("factor")), static_cast<float>(args.number("softcap")), x.data};
  }
};

struct ColumnsOp {
  static constexpr const char* kName = "columns";
  static constexpr auto kRun = core::columns;

  static core::Columns parse(Args& args) {
    core::Columns op{};
    op.rows = args.dimension("rows");
    op.width = args.dimension("width");
    op.cols = args.dimension("cols");
    if (op.cols > op.width) throw args.range_error("Expected cols to be at most width.");
    op.from = args.integer("from", 0, static_cast<uint32_t>(op.width - op.cols));
    op.x = args.array<float>("x", args.product({op.rows, op.width}));
    op.out = args.array<float>("out", args.product({op.rows, op.cols}));
    return op;
  }
};

struct AddOp {
  static constexpr const char* kName = "add";
  static constexpr auto kRun = core::add;

  static core::Add parse(Args& args) {
    const Span<float> to = args.array<float>("to");
    return {to.length, args.array<float>("x", to.length), to.data};
  }
};

struct LargePagesOp {
  static constexpr const char* kName = "largePages";
  static constexpr auto kRun = core::large_pages;

  static core::LargePages parse(Args& args) {
    const Span<float> array = args.array<float>("array");
    return {array.data, array.length, args.array<int32_t>("toPage", 1)};
  }
};

struct TrimOp {
  static constexpr const char* kName = "trim";
  static constexpr auto kRun = core::trim;

  static core::Trim parse(Args&) { return {}; }
};

}  // namespace hqq::addon
