#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "ahead.h"
#include "operations.h"
#include "pages.h"
#include "parallel.h"
#include "scratch.h"

namespace hqq::core {
namespace {

using kernels::Block;
using kernels::BlockStats;
using kernels::KernelTable;
using kernels::kLanes;
using kernels::padded;

// Kernels work on whole vectors: what fills up a group's last one must not disturb its minimum and maximum.
void pad_group(float* group, size_t size) { std::fill(group + size, group + padded(size), group[0]); }

// to[i] = importance of weight i of a group
void gather(const Importance& importance, size_t group, size_t size, float* to) {
  const size_t features = importance.features, stride = importance.stride % features;
  // Whatever a start may be, it is a feature: others may write to the array while this runs.
  size_t feature = static_cast<uint32_t>(importance.starts[group]) % features;
  for (size_t i = 0; i < size; ++i) {
    to[i] = importance.values[feature];
    feature += stride;
    if (feature >= features) feature -= features;
  }
  pad_group(to, size);
}

// What gives a block its codes.
using SolveBlock = decltype(KernelTable::encode_block);

// What both axes share: the operation, its kernels and the sizes that follow from them.
struct Plan {
  const Quantize& op;
  const KernelTable& kernels;
  const SolveBlock solve_block;
  size_t fields, word_bytes;

  Plan(const Context& context, const Quantize& quantize, SolveBlock solve)
      : op(quantize),
        kernels(context.kernels),
        solve_block(solve),
        fields(row_of(quantize.format).fields),
        word_bytes(row_of(quantize.format).word_bytes) {}

  void widen(size_t from, size_t count, float* to) const {
    kernels.widen[static_cast<size_t>(op.dtype)](offset_bytes(op.weights, from, bytes_of(op.dtype)), count, to);
  }
  void pack_row(const uint8_t* const* field_rows, size_t count, void* words) const {
    kernels.pack_row[static_cast<size_t>(op.format)](field_rows, count, words);
  }
  // Floats of a block's importance.
  size_t importance_floats(size_t stride) const { return op.importance.values == nullptr ? 0 : op.block * stride; }
  size_t lane_floats(size_t size) const { return kernels::lane_floats(size, op.importance.values != nullptr); }
  size_t memory_floats(size_t size) const {
    return solve_block == kernels.encode_block ? 0 : kernels.solvers[op.solver].scratch(op.options, size);
  }
  // Solves a block whose first group is `group`; `importance` is scratch of as many floats.
  void solve(Block block, size_t group, float* importance, BlockStats* stats) const {
    if (op.importance.values != nullptr) {
      for (size_t g = 0; g < block.groups; ++g)
        gather(op.importance, group + g, block.size, importance + g * padded(block.size));
      block.importance = importance;
    }
    solve_block(op.options, block, stats);
  }
};

// Axis 1: a group is a row of the grouped matrix. A unit is a few packed rows: `block` groups of every field.
class RowGroups {
 public:
  RowGroups(const Plan& plan, int threads) : plan_(plan), op_(plan.op), stride_(padded(plan.op.cols)) {
    in_place_ = op_.dtype == DType::f32 && op_.cols == stride_;
    weights_ = scratch_.reserve<float>(in_place_ ? 0 : op_.block * stride_);
    scaled_ = scratch_.reserve<float>(op_.block * stride_);
    importance_ = scratch_.reserve<float>(plan.importance_floats(stride_));
    lanes_ = scratch_.reserve<float>(plan.lane_floats(op_.cols));
    memory_ = scratch_.reserve<float>(plan.memory_floats(op_.cols));
    codes_ = scratch_.reserve<uint8_t>(plan.fields * op_.block * stride_);
    scratch_.allocate(threads);
  }

  size_t units() const { return (op_.step + op_.block - 1) / op_.block; }

  void run(size_t unit, int slot, BlockStats* stats) const {
    const size_t first_row = unit * op_.block, rows = std::min(op_.block, op_.step - first_row);
    auto* codes = scratch_.at<uint8_t>(codes_, slot);
    for (size_t f = 0; f < plan_.fields; ++f) {
      const size_t group = f * op_.step + first_row;
      const size_t present = group < op_.rows ? std::min(rows, op_.rows - group) : 0;
      uint8_t* field_codes = codes + f * op_.block * stride_;
      if (present > 0) solve(group, present, slot, field_codes, stats);
      std::memset(field_codes + present * stride_, 0, (rows - present) * stride_);
    }
    for (size_t r = 0; r < rows; ++r) {
      const uint8_t* field_rows[kMaxFields];
      for (size_t f = 0; f < plan_.fields; ++f) field_rows[f] = codes + (f * op_.block + r) * stride_;
      plan_.pack_row(field_rows, op_.cols, offset_bytes(op_.packed, (first_row + r) * op_.cols, plan_.word_bytes));
    }
  }

 private:
  void solve(size_t group, size_t count, int slot, uint8_t* codes, BlockStats* stats) const {
    const float* weights = static_cast<const float*>(op_.weights) + group * op_.cols;
    if (!in_place_) {
      auto* wide = scratch_.at<float>(weights_, slot);
      for (size_t g = 0; g < count; ++g) {
        plan_.widen((group + g) * op_.cols, op_.cols, wide + g * stride_);
        pad_group(wide + g * stride_, op_.cols);
      }
      weights = wide;
    }
    const Block block{
        .weights = weights,
        .scaled = scratch_.at<float>(scaled_, slot),
        .importance = nullptr,
        .lanes = scratch_.at<float>(lanes_, slot),
        .memory = scratch_.at<float>(memory_, slot),
        .codes = codes,
        .scale = op_.scale + group,
        .zero = op_.zero + group,
        .groups = count,
        .size = op_.cols,
        .stride = stride_,
        .codes_stride = stride_,
        .ahead = ahead_of_rows(op_, group),
    };
    plan_.solve(block, group, scratch_.at<float>(importance_, slot), stats);
  }

  const Plan& plan_;
  const Quantize& op_;
  const size_t stride_;
  bool in_place_;
  Scratch scratch_;
  size_t weights_, scaled_, importance_, lanes_, memory_, codes_;
};

// Axis 0: a group is a column of the grouped matrix. A unit is a strip of neighbouring columns: wide enough to read and
// write whole cache lines, turned sixteen columns at a time into rows for the kernels and back.
class ColumnGroups {
 public:
  ColumnGroups(const Plan& plan, int threads)
      : plan_(plan),
        op_(plan.op),
        strip_(std::min(op_.block * kLanes, op_.cols)),
        stride_(padded(op_.rows)),
        codes_stride_(padded(std::max(op_.rows, plan.fields * op_.step))) {
    const size_t turned = std::min(kLanes, op_.cols);  // a matrix that is one group takes no more memory than it must
    wide_ = scratch_.reserve<float>(op_.rows * strip_);
    weights_ = scratch_.reserve<float>(turned * stride_);
    scaled_ = scratch_.reserve<float>(op_.block * stride_);
    importance_ = scratch_.reserve<float>(plan.importance_floats(stride_));
    lanes_ = scratch_.reserve<float>(plan.lane_floats(op_.rows));
    memory_ = scratch_.reserve<float>(plan.memory_floats(op_.rows));
    codes_ = scratch_.reserve<uint8_t>(turned * codes_stride_);
    words_ = scratch_.reserve<uint32_t>(turned * op_.step);
    packed_ = scratch_.reserve<uint32_t>(strip_ * op_.step);
    scratch_.allocate(threads);
  }

  size_t units() const { return (op_.cols + strip_ - 1) / strip_; }

  void run(size_t unit, int slot, BlockStats* stats) const {
    const size_t first = unit * strip_, columns = std::min(strip_, op_.cols - first);
    auto* wide = scratch_.at<float>(wide_, slot);
    auto* packed = scratch_.at<std::byte>(packed_, slot);
    for (size_t r = 0; r < op_.rows; ++r) plan_.widen(r * op_.cols + first, columns, wide + r * strip_);
    for (size_t c = 0; c < columns; c += kLanes) {
      const size_t count = std::min(kLanes, columns - c);
      solve(wide + c, first + c, count, ahead_of_columns(op_, strip_, first, c), slot, stats);
      pack(count, slot, packed + c * plan_.word_bytes);
    }
    for (size_t r = 0; r < op_.step; ++r)
      std::memcpy(offset_bytes(op_.packed, r * op_.cols + first, plan_.word_bytes),
                  packed + r * strip_ * plan_.word_bytes, columns * plan_.word_bytes);
  }

 private:
  void solve(const float* wide, size_t group, size_t count, const kernels::Ahead& ahead, int slot,
             BlockStats* stats) const {
    auto* weights = scratch_.at<float>(weights_, slot);
    auto* codes = scratch_.at<uint8_t>(codes_, slot);
    plan_.kernels.transpose_u32(reinterpret_cast<const uint32_t*>(wide), op_.rows, count, strip_,
                                reinterpret_cast<uint32_t*>(weights), stride_);
    for (size_t g = 0; g < count; ++g) pad_group(weights + g * stride_, op_.rows);
    for (size_t g = 0; g < count; g += op_.block) {
      const Block block{
          .weights = weights + g * stride_,
          .scaled = scratch_.at<float>(scaled_, slot),
          .importance = nullptr,
          .lanes = scratch_.at<float>(lanes_, slot),
          .memory = scratch_.at<float>(memory_, slot),
          .codes = codes + g * codes_stride_,
          .scale = op_.scale + group + g,
          .zero = op_.zero + group + g,
          .groups = std::min(op_.block, count - g),
          .size = op_.rows,
          .stride = stride_,
          .codes_stride = codes_stride_,
          .ahead = ahead,
      };
      plan_.solve(block, group + g, scratch_.at<float>(importance_, slot), stats);
    }
  }

  // Fields of a packed column are runs of the group's codes: packed along the group, then turned.
  void pack(size_t count, int slot, std::byte* packed) const {
    auto* codes = scratch_.at<uint8_t>(codes_, slot);
    auto* words = scratch_.at<std::byte>(words_, slot);
    for (size_t g = 0; g < count; ++g) {
      uint8_t* group = codes + g * codes_stride_;
      std::fill(group + op_.rows, group + codes_stride_, uint8_t{0});
      const uint8_t* field_rows[kMaxFields];
      for (size_t f = 0; f < plan_.fields; ++f) field_rows[f] = group + f * op_.step;
      plan_.pack_row(field_rows, op_.step, words + g * op_.step * plan_.word_bytes);
    }
    if (plan_.word_bytes == 1) {
      plan_.kernels.transpose_u8(reinterpret_cast<uint8_t*>(words), count, op_.step, op_.step,
                                 reinterpret_cast<uint8_t*>(packed), strip_);
    } else {
      plan_.kernels.transpose_u32(reinterpret_cast<uint32_t*>(words), count, op_.step, op_.step,
                                  reinterpret_cast<uint32_t*>(packed), strip_);
    }
  }

  const Plan& plan_;
  const Quantize& op_;
  const size_t strip_, stride_, codes_stride_;
  Scratch scratch_;
  size_t wide_, weights_, scaled_, importance_, lanes_, memory_, codes_, words_, packed_;
};

// Index of the first weight that is NaN or infinite, or -1: all bits of its exponent are set.
double first_non_finite(const Quantize& op) {
  const size_t count = op.rows * op.cols;
  const auto find = [count](const auto* bits, uint32_t exponent) {
    for (size_t i = 0; i < count; ++i)
      if ((bits[i] & exponent) == exponent) return static_cast<double>(i);
    return -1.0;
  };
  if (op.dtype == DType::f32) return find(static_cast<const uint32_t*>(op.weights), 0x7f800000u);
  return find(static_cast<const uint16_t*>(op.weights), op.dtype == DType::f16 ? 0x7c00u : 0x7f80u);
}

template <class Groups>
Status run(const Context& context, const Quantize& op, SolveBlock solve) {
  const Plan plan(context, op, solve);
  prefer_large_pages(op.packed, op.step * op.cols * plan.word_bytes);
  const Groups groups(plan, context.threads);
  std::vector<BlockStats> parts(groups.units());
  const Status status = parallel_for(context, groups.units(), [&](size_t unit, int slot) {
    BlockStats stats{};  // on the thread's own stack: neighbours in `parts` share cache lines
    groups.run(unit, slot, &stats);
    parts[unit] = stats;
  });
  if (status != Status::ok) return status;
  // In the order of the units, whichever thread did them: the same sums for any number of threads.
  BlockStats total{};
  for (const BlockStats& part : parts) {
    total.abs_error += part.abs_error;
    total.squared_error += part.squared_error;
    total.squared_weight += part.squared_weight;
    total.iterations = std::max(total.iterations, part.iterations);
  }
  op.stats[0] = total.abs_error;
  op.stats[1] = total.squared_error;
  op.stats[2] = total.squared_weight;
  op.stats[3] = total.iterations;
  // A weight that is not finite makes its group's error so; the solver itself need not look.
  op.stats[4] = std::isfinite(total.abs_error) ? -1 : first_non_finite(op);
  return Status::ok;
}

}  // namespace

Status quantize(const Context& context, const Quantize& op) {
  const auto solve = context.kernels.solvers[op.solver].solve_block;
  return op.axis == 1 ? run<RowGroups>(context, op, solve) : run<ColumnGroups>(context, op, solve);
}

Status encode(const Context& context, const Quantize& op) {
  const auto solve = context.kernels.encode_block;
  return op.axis == 1 ? run<RowGroups>(context, op, solve) : run<ColumnGroups>(context, op, solve);
}

}  // namespace hqq::core
