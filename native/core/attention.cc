#include <algorithm>

#include "operations.h"
#include "parallel.h"
#include "scratch.h"

// Attention: how it is cut into units of work, and these into what caches hold.
namespace hqq::core {
namespace {

using kernels::kLanes;

// Queries of a unit that share keys and values.
constexpr size_t kQueries = 8;

// Positions whose values are read for all of a unit.
constexpr size_t kPositions = 16;

// Keys and values of one head, for the whole text.
struct HeadCache {
  float* keys;    // [capacity / kLanes, head_dim, kLanes]
  float* values;  // [capacity, head_dim]

  HeadCache(const Attention& op, size_t head)
      : keys(op.keys + head * op.capacity * op.head_dim), values(op.values + head * op.capacity * op.head_dim) {}
};

// Writes those of the rows to their places.
void append(const Attention& op, size_t head) {
  const HeadCache cache(op, head);
  for (size_t row = 0; row < op.rows; ++row) {
    const size_t position = op.start + row, from = (row * op.kv_heads + head) * op.head_dim;
    float* const key = cache.keys + position / kLanes * op.head_dim * kLanes + position % kLanes;
    for (size_t d = 0; d < op.head_dim; ++d) key[d * kLanes] = op.k[from + d];
    std::copy_n(op.v + from, op.head_dim, cache.values + position * op.head_dim);
  }
}

// Some rows, and the heads that share one head's keys and values: a query each.
struct Unit {
  size_t row, rows, head;
};

// What a unit keeps of its queries.
struct Queries {
  const float** q;  // -> [head_dim]
  float** scores;   // -> [positions of the unit]
  float** out;      // -> [head_dim]
  float* totals;    // of exponentials
};

// The position of the first key that a row sees. The last one is its own.
size_t first_seen(const Attention& op, size_t row) {
  const size_t end = op.start + row + 1;
  return op.window > 0 && end > op.window ? end - op.window : 0;
}

void attend(const kernels::KernelTable& kernels, const Attention& op, const Unit& unit, const Queries& queries) {
  const size_t group = op.heads / op.kv_heads, count = unit.rows * group, rows_end = unit.row + unit.rows;
  const HeadCache cache(op, unit.head);
  for (size_t i = 0; i < count; ++i) {
    const size_t at = ((unit.row + i / group) * op.heads + unit.head * group + i % group) * op.head_dim;
    queries.q[i] = op.q + at, queries.out[i] = op.out + at;
  }
  // Blocks of keys are whole: a row's scores before its first key and after its last are computed, and not used.
  const size_t base = first_seen(op, unit.row) / kLanes * kLanes, end = op.start + rows_end;
  kernels.scores({.queries = queries.q,
                  .scores = queries.scores,
                  .keys = cache.keys + base * op.head_dim,
                  .count = count,
                  .blocks = (end - base + kLanes - 1) / kLanes,
                  .width = op.head_dim});
  for (size_t i = 0; i < count; ++i) {
    const size_t row = unit.row + i / group, first = first_seen(op, row);
    float* const weights = queries.scores[i] + first - base;
    const size_t seen = op.start + row + 1 - first;
    queries.totals[i] = kernels.softmax(weights, seen, op.scale);
    std::fill_n(queries.out[i], op.head_dim, 0.0f);
  }
  for (size_t at = base; at < end; at += kPositions)
    for (size_t row = unit.row; row < rows_end; ++row) {
      const size_t first = std::max(at, first_seen(op, row)), last = std::min(at + kPositions, op.start + row + 1);
      if (first >= last) continue;
      const size_t i = (row - unit.row) * group;
      kernels.weighted_sums({.weights = queries.scores + i,
                             .sums = queries.out + i,
                             .values = cache.values + first * op.head_dim,
                             .count = group,
                             .first = first - base,
                             .rows = last - first,
                             .width = op.head_dim});
    }
  for (size_t i = 0; i < count; ++i) {
    const float factor = 1.0f / queries.totals[i];
    for (size_t d = 0; d < op.head_dim; ++d) queries.out[i][d] *= factor;
  }
}

}  // namespace

Status attention(const Context& context, const Attention& op) {
  const size_t group = op.heads / op.kv_heads, rows = std::min(std::max<size_t>(kQueries / group, 1), op.rows);
  const size_t most = rows * group, positions = op.start + op.rows + 2 * kLanes;
  Scratch scratch;
  const size_t scores_at = scratch.reserve<float>(most * positions);
  const size_t q_at = scratch.reserve<const float*>(most), out_at = scratch.reserve<float*>(most);
  const size_t lines_at = scratch.reserve<float*>(most), totals_at = scratch.reserve<float>(most);
  scratch.allocate(context.threads);
  const Context appending{context.kernels, op.rows == 1 ? 1 : context.threads, context.cancel};
  const Status status = parallel_for(appending, op.kv_heads, [&](size_t head, int) { append(op, head); });
  if (status != Status::ok) return status;
  return parallel_for(context, (op.rows + rows - 1) / rows * op.kv_heads, [&](size_t unit, int slot) {
    const size_t row = unit / op.kv_heads * rows;
    const Queries queries{scratch.at<const float*>(q_at, slot), scratch.at<float*>(lines_at, slot),
                          scratch.at<float*>(out_at, slot), scratch.at<float>(totals_at, slot)};
    for (size_t i = 0; i < most; ++i) queries.scores[i] = scratch.at<float>(scores_at, slot) + i * positions;
    attend(context.kernels, op, {row, std::min(rows, op.rows - row), unit % op.kv_heads}, queries);
  });
}

}  // namespace hqq::core
