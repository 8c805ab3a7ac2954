#pragma once
#include "../core/operations.h"
#include "args.h"

// Operations on ggml's blocks: how each reads its arguments.
namespace hqq::addon {

struct EncodeBlocksOp {
  static constexpr const char* kName = "encodeBlocks";
  static constexpr auto kRun = core::encode_blocks;

  static core::EncodeBlocks parse(Args& args) {
    core::EncodeBlocks op{};
    op.type = &kBlockTypes[args.integer("type", 0, kBlockTypeCount - 1)];
    op.rows = args.dimension("rows");
    op.cols = args.dimension("cols");
    if (op.cols % op.type->weights != 0) throw args.range_error("Expected cols to fill blocks.");
    const uint64_t count = uint64_t{op.rows} * op.cols;
    op.dtype = args.dtype("dtype");
    op.weights = args.floats("weights", op.dtype, count);
    const Span<float> starts = args.array<float>("starts");
    if (starts.length < 2 || starts.length % 2 != 0) throw args.range_error("Expected starts to have pairs.");
    op.options.starts = starts.data;
    op.options.start_count = starts.length / 2;
    const auto steps = [&](const char* name) { return static_cast<int>(args.integer(name, 0, kMostSteps)); };
    op.options.steps = steps("steps");
    op.options.more = steps("more");
    op.options.rounds = steps("rounds");
    op.options.searches = steps("searches");
    op.importance = args.optional_floats("importance", op.cols);
    op.blocks = args.array<uint8_t>("blocks", count / op.type->weights * op.type->bytes);
    op.stats = args.array<double>("stats", 5);
    return op;
  }

  static constexpr uint32_t kMostSteps = 100;
};

struct DecodeBlocksOp {
  static constexpr const char* kName = "decodeBlocks";
  static constexpr auto kRun = core::decode_blocks;

  static core::DecodeBlocks parse(Args& args) {
    core::DecodeBlocks op{};
    read_blocks(args, op);
    op.out = args.array<float>("out", uint64_t{op.count} * op.type->weights);
    return op;
  }

  static void read_blocks(Args& args, core::DecodeBlocks& op) {
    op.type = &kBlockTypes[args.integer("type", 0, kBlockTypeCount - 1)];
    const Span<uint8_t> blocks = args.array<uint8_t>("blocks");
    if (blocks.length % op.type->bytes != 0) throw args.range_error("Expected whole blocks.");
    op.blocks = blocks.data;
    op.count = blocks.length / op.type->bytes;
  }
};

struct SplitBlocksOp {
  static constexpr const char* kName = "splitBlocks";
  static constexpr auto kRun = core::decode_blocks;

  static core::DecodeBlocks parse(Args& args) {
    core::DecodeBlocks op{};
    DecodeBlocksOp::read_blocks(args, op);
    op.codes = args.array<uint8_t>("codes", uint64_t{op.count} * op.type->weights);
    op.scale = args.array<float>("scale", uint64_t{op.count} * op.type->subs());
    op.zero = args.array<float>("zero", uint64_t{op.count} * op.type->subs());
    return op;
  }
};

}  // namespace hqq::addon
