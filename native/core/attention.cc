#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "cache.h"
#include "layers.h"
#include "parallel.h"
#include "scratch.h"

// Attention: how it is cut into units of work, and these into what caches hold.
namespace hqq::core {
namespace {

// Queries of a unit that share keys and values: threes and fours of them are multiplied at once.
constexpr size_t kQueries = 12;

// Positions whose values are read for all of a unit.
constexpr size_t kPositions = 16;

// Multiply-adds below which one thread is faster than waking another. Nobody else can decide it: positions may change
// after a caller has said how many threads there are.
constexpr size_t kSerialWork = size_t{1} << 17;

// The operation, with the positions that the rows had when it began.
struct Call {
  const Attention& op;
  std::vector<size_t> begins;  // of segments
  size_t capacity = 0;
  std::vector<size_t> positions;

  // Each position is read once: JavaScript may write to them at any time, and what was checked is what is used.
  explicit Call(const Attention& op) : op(op), positions(op.rows) {
    for (const CacheSegment& segment : op.segments) begins.push_back(capacity), capacity += segment.capacity;
    for (size_t row = 0; row < op.rows; ++row) {
      const int32_t position = *static_cast<const volatile int32_t*>(op.positions + row);
      if (position < 0 || static_cast<size_t>(position) >= capacity) {
        throw std::out_of_range("Expected positions to be in [0, " + std::to_string(capacity - 1) + "], got " +
                                std::to_string(position) + ".");
      }
      positions[row] = static_cast<size_t>(position);
    }
  }

  // Past the last key that a row sees: its own.
  size_t end_of(size_t row) const { return positions[row] + 1; }

  // The position of the first one.
  size_t first_of(size_t row) const {
    const size_t end = end_of(row);
    return op.window > 0 && end > op.window ? end - op.window : 0;
  }

  // Multiply-adds.
  size_t work() const {
    size_t seen = 0;
    for (size_t row = 0; row < op.rows; ++row) seen += end_of(row) - first_of(row);
    return 2 * seen * op.heads * op.head_dim;
  }
};

// Calls body(segment, from, to) for each segment that has some of the positions [first, end), which of them in the
// text.
template <class Body>
void for_segments(const Call& call, size_t first, size_t end, const Body& body) {
  for (size_t i = 0; i < call.begins.size() && call.begins[i] < end; ++i) {
    const size_t past = call.begins[i] + call.op.segments[i].capacity;
    if (past > first) body(i, std::max(first, call.begins[i]), std::min(end, past));
  }
}

// Writes those of the rows to their places.
void append_rows(const Call& call, const kernels::KernelTable& kernels, size_t head) {
  const Attention& op = call.op;
  for (size_t row = 0; row < op.rows; ++row) {
    const size_t position = call.positions[row], from = (row * op.kv_heads + head) * op.head_dim;
    for_segments(call, position, position + 1, [&](size_t segment, size_t, size_t) {
      append(op, kernels, op.segments[segment], head, position - call.begins[segment], op.k + from, op.v + from);
    });
  }
}

// Some rows, and the heads that share one head's keys and values: a query each.
struct QueryUnit {
  size_t row, rows, head;
};

// What a unit keeps of its queries.
struct Queries {
  const float** q;  // -> [head_dim]
  float** scores;   // -> [positions of the unit]
  float** lines;    // -> some of them
  float** sums;     // of bytes: -> [groups], of its elements
  float** out;      // -> [head_dim]
  float* totals;    // of exponentials
};

void attend(const kernels::KernelTable& kernels, const Call& call, const QueryUnit& unit, const Queries& queries) {
  const Attention& op = call.op;
  const size_t group = op.heads / op.kv_heads, count = unit.rows * group, rows_end = unit.row + unit.rows;
  const size_t groups = cache_groups(op.type, op.head_dim), type = static_cast<size_t>(op.type);
  for (size_t i = 0; i < count; ++i) {
    const size_t at = ((unit.row + i / group) * op.heads + unit.head * group + i % group) * op.head_dim;
    queries.q[i] = op.q + at, queries.out[i] = op.out + at;
    for (size_t d = 0; d < op.head_dim && groups > 0; ++d) {
      float& sum = queries.sums[i][d / kCacheGroup];
      sum = (d % kCacheGroup == 0 ? 0.0f : sum) + queries.q[i][d];
    }
  }
  size_t first_of_all = call.first_of(unit.row), end = call.end_of(unit.row);
  size_t first_in_all = first_of_all, end_in_all = end;  // what each row sees
  for (size_t row = unit.row + 1; row < rows_end; ++row) {
    first_of_all = std::min(first_of_all, call.first_of(row)), end = std::max(end, call.end_of(row));
    first_in_all = std::max(first_in_all, call.first_of(row)), end_in_all = std::min(end_in_all, call.end_of(row));
  }
  // Strips of keys are whole: a row's scores before its first key and after its last are computed, and not used.
  const size_t base = first_of_all / kLanes * kLanes;
  for_segments(call, base, end, [&](size_t i, size_t from, size_t to) {
    const HeadCache cache(op, op.segments[i], unit.head);
    const size_t first = from - call.begins[i];
    for (size_t n = 0; n < count; ++n) queries.lines[n] = queries.scores[n] + (from - base);
    kernels.scores[type]({.queries = queries.q,
                          .scores = queries.lines,
                          .keys = cache.keys + first * op.head_dim * bytes_of(op.type),
                          .meta = cache.key_meta + first * groups * 2,
                          .totals = queries.sums,
                          .count = count,
                          .strips = (to - from + kLanes - 1) / kLanes,
                          .width = op.head_dim});
  });
  for (size_t i = 0; i < count; ++i) {
    const size_t row = unit.row + i / group, first = call.first_of(row);
    float* const weights = queries.scores[i] + first - base;
    const size_t seen = call.end_of(row) - first;
    if (op.softcap > 0) kernels.softcap(weights, seen, op.scale, op.softcap);
    queries.totals[i] = kernels.softmax(weights, seen, op.softcap > 0 ? 1.0f : op.scale);
    std::fill_n(queries.out[i], op.head_dim, 0.0f);
  }
  for_segments(call, base, end, [&](size_t i, size_t from, size_t to) {
    const HeadCache cache(op, op.segments[i], unit.head);
    const auto add = [&](size_t n, size_t some, size_t first, size_t last) {
      const size_t position = first - call.begins[i];
      kernels.weighted_sums[type]({.weights = queries.scores + n,
                                   .sums = queries.out + n,
                                   .values = cache.values + position * op.head_dim * bytes_of(op.type),
                                   .meta = cache.value_meta + position * groups * 2,
                                   .count = some,
                                   .first = first - base,
                                   .rows = last - first,
                                   .width = op.head_dim});
    };
    for (size_t at = from; at < to; at += kPositions) {
      const size_t past = std::min(at + kPositions, to);
      if (first_in_all <= at && past <= end_in_all) {
        add(0, count, at, past);
        continue;
      }
      for (size_t row = unit.row; row < rows_end; ++row) {
        const size_t first = std::max(at, call.first_of(row)), last = std::min(past, call.end_of(row));
        if (first < last) add((row - unit.row) * group, group, first, last);
      }
    }
  });
  for (size_t i = 0; i < count; ++i) {
    const float factor = 1.0f / queries.totals[i];
    for (size_t d = 0; d < op.head_dim; ++d) queries.out[i][d] *= factor;
  }
}

}  // namespace

Status attention(const Context& outer, const Attention& op) {
  const Call call(op);
  const Context context{outer.kernels, call.work() < kSerialWork ? 1 : outer.threads, outer.cancel};
  const size_t group = op.heads / op.kv_heads, rows = std::min(std::max<size_t>(kQueries / group, 1), op.rows);
  const size_t most = rows * group, last = *std::max_element(call.positions.begin(), call.positions.end());
  const size_t positions = last + 1 + 2 * kLanes;
  Scratch scratch;
  const size_t scores_at = scratch.reserve<float>(most * positions);
  const size_t q_at = scratch.reserve<const float*>(most), out_at = scratch.reserve<float*>(most);
  const size_t heads_at = scratch.reserve<float*>(most), lines_at = scratch.reserve<float*>(most);
  const size_t totals_at = scratch.reserve<float>(most), sums_at = scratch.reserve<float*>(most);
  const size_t groups = cache_groups(op.type, op.head_dim), groups_at = scratch.reserve<float>(most * groups);
  scratch.allocate(context.threads);
  const Context appending{context.kernels, op.rows == 1 ? 1 : context.threads, context.cancel};
  const Status status =
      parallel_for(appending, op.kv_heads, [&](size_t head, int) { append_rows(call, context.kernels, head); });
  if (status != Status::ok) return status;
  // One head after the other: its keys and values stay in the caches.
  const size_t of_head = (op.rows + rows - 1) / rows;
  return parallel_for(context, of_head * op.kv_heads, [&](size_t unit, int slot) {
    const size_t row = unit % of_head * rows;
    const Queries queries{scratch.at<const float*>(q_at, slot), scratch.at<float*>(heads_at, slot),
                          scratch.at<float*>(lines_at, slot),   scratch.at<float*>(sums_at, slot),
                          scratch.at<float*>(out_at, slot),     scratch.at<float>(totals_at, slot)};
    for (size_t i = 0; i < most; ++i) {
      queries.scores[i] = scratch.at<float>(scores_at, slot) + i * positions;
      queries.sums[i] = scratch.at<float>(groups_at, slot) + i * groups;
    }
    attend(context.kernels, call, {row, std::min(rows, op.rows - row), unit / of_head}, queries);
  });
}

}  // namespace hqq::core
