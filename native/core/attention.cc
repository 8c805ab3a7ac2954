#include <algorithm>

#include "operations.h"
#include "parallel.h"
#include "scratch.h"

// Attention: how it is cut into units of work, and these into what caches hold.
namespace hqq::core {
namespace {

// Queries of a unit that share keys and values.
constexpr size_t kQueries = 8;

// Positions whose keys or values are read for all of a unit: few, so that what lies together in memory is read together.
constexpr size_t kPositions = 8;

// Some rows, and heads: those that share the keys and values `first` to `first + count`.
struct Unit {
  size_t row, rows, first, count;
  float* scores;  // [rows, heads, length of the text]  scratch
  float* totals;  // [rows, heads]                      scratch
};

// The position of the first key that a row sees. The last one is its own.
size_t first_seen(const Attention& op, size_t row) {
  const size_t end = op.start + row + 1;
  return op.window > 0 && end > op.window ? end - op.window : 0;
}

// Calls body(row, first, count) with the positions that rows of a unit see, block by block, those of a row in their order.
template <class Body>
void for_blocks(const Attention& op, const Unit& unit, const Body& body) {
  const size_t rows_end = unit.row + unit.rows;
  for (size_t at = first_seen(op, unit.row); at < op.start + rows_end; at += kPositions)
    for (size_t row = unit.row; row < rows_end; ++row) {
      const size_t first = std::max(at, first_seen(op, row)), end = std::min(at + kPositions, op.start + row + 1);
      if (first < end) body(row, first, end - first);
    }
}

void attend(const kernels::KernelTable& kernels, const Attention& op, const Unit& unit) {
  const size_t group = op.heads / op.kv_heads, heads = unit.count * group, first_head = unit.first * group;
  const size_t length = op.start + op.rows, stride = op.kv_heads * op.head_dim;
  const auto at = [&](size_t row) { return (row * op.heads + first_head) * op.head_dim; };
  const auto scores = [&](size_t row) { return unit.scores + (row - unit.row) * heads * length; };

  for_blocks(op, unit, [&](size_t row, size_t first, size_t count) {
    for (size_t g = 0; g < unit.count; ++g)
      kernels.scores({.queries = op.q + at(row) + g * group * op.head_dim,
                      .keys = op.keys + first * stride + (unit.first + g) * op.head_dim,
                      .scores = scores(row) + g * group * length + first,
                      .heads = group,
                      .count = count,
                      .width = op.head_dim,
                      .stride = stride,
                      .scores_stride = length});
  });
  for (size_t row = unit.row, i = 0; row < unit.row + unit.rows; ++row) {
    const size_t first = first_seen(op, row), seen = op.start + row + 1 - first;
    for (size_t h = 0; h < heads; ++h, ++i)
      unit.totals[i] = kernels.softmax(scores(row) + h * length + first, seen, op.scale);
    std::fill_n(op.out + at(row), heads * op.head_dim, 0.0f);
  }
  for_blocks(op, unit, [&](size_t row, size_t first, size_t count) {
    for (size_t g = 0; g < unit.count; ++g)
      kernels.weighted_sums({.weights = scores(row) + g * group * length + first,
                             .rows = op.values + first * stride + (unit.first + g) * op.head_dim,
                             .sums = op.out + at(row) + g * group * op.head_dim,
                             .heads = group,
                             .count = count,
                             .width = op.head_dim,
                             .stride = stride,
                             .weights_stride = length});
  });
  for (size_t row = unit.row, i = 0; row < unit.row + unit.rows; ++row)
    for (size_t h = 0; h < heads; ++h, ++i) {
      float* const out = op.out + at(row) + h * op.head_dim;
      const float factor = 1.0f / unit.totals[i];
      for (size_t d = 0; d < op.head_dim; ++d) out[d] *= factor;
    }
}

}  // namespace

Status attention(const Context& context, const Attention& op) {
  const size_t group = op.heads / op.kv_heads, rows = std::min(std::max<size_t>(kQueries / group, 1), op.rows);
  // A single row is cut into as many units as there are threads: the more heads one has, the more of what lies together in
  // memory it reads. Each head is computed by itself, so its bits are the same in any unit.
  const size_t most = op.rows == 1 ? std::min(static_cast<size_t>(context.threads), op.kv_heads) : op.kv_heads;
  const size_t count = (op.kv_heads + most - 1) / most, across = (op.kv_heads + count - 1) / count;
  Scratch scratch;
  const size_t scores_at = scratch.reserve<float>(rows * count * group * (op.start + op.rows));
  const size_t totals_at = scratch.reserve<float>(rows * count * group);
  scratch.allocate(context.threads);
  return parallel_for(context, (op.rows + rows - 1) / rows * across, [&](size_t unit, int slot) {
    const size_t row = unit / across * rows, first = unit % across * count;
    attend(context.kernels, op,
           {.row = row,
            .rows = std::min(rows, op.rows - row),
            .first = first,
            .count = std::min(count, op.kv_heads - first),
            .scores = scratch.at<float>(scores_at, slot),
            .totals = scratch.at<float>(totals_at, slot)});
  });
}

}  // namespace hqq::core
