#include <algorithm>

#include "layer-gradients.h"
#include "parallel.h"
#include "scratch.h"

// The gradient of attention: how it is cut into units of work, and these into the kernels of attention itself.
//
//     P = softmax(S)   dV = PT dO   dP = dO VT   dS = P (dP - sum over j of P dP)   dQ = dS K   dK = dST Q
namespace hqq::core {
namespace {

using kernels::kLanes;

// Rows of a tile, whose probabilities are in memory together.
constexpr size_t kRows = kLanes;

// Keys and values of all heads of a text as the kernels take them.
struct Arranged {
  float *keys, *key_strips,
      *value_strips;  // [kv_heads, rows, head_dim], and [kv_heads, strips, head_dim, kLanes] twice
};

// What the queries of each head make of keys and values.
struct Parts {
  float *keys, *values;  // [heads, rows, head_dim]
};

// What a thread computes in.
struct Tile {
  float *weights, *changes;  // [kRows, positions]: probabilities, and the gradients of these, then of scores
  float* capped;             // [kRows, positions]: scores; only with a softcap
  float* turned;             // [positions, kRows]
  float *q, *gradient;       // [kRows, head_dim]
  const float** from;        // [max(kRows, positions)]
  float** to;                // likewise
};

void arrange(const AttentionGradient& op, const Arranged& arranged, size_t head) {
  const size_t width = op.head_dim, padded = kernels::padded(op.rows);
  float* const keys = arranged.keys + head * op.rows * width;
  float *const key_strips = arranged.key_strips + head * padded * width, *const value_strips = arranged.value_strips +
                                                                                               head * padded * width;
  std::fill_n(key_strips + (padded - kLanes) * width, kLanes * width, 0.0f);
  std::fill_n(value_strips + (padded - kLanes) * width, kLanes * width, 0.0f);
  for (size_t row = 0; row < op.rows; ++row) {
    const size_t at = (row * op.kv_heads + head) * width, strip = row / kLanes * kLanes * width + row % kLanes;
    std::copy_n(op.k + at, width, keys + row * width);
    for (size_t d = 0; d < width; ++d) {
      key_strips[strip + d * kLanes] = op.k[at + d];
      value_strips[strip + d * kLanes] = op.v[at + d];
    }
  }
}

size_t first_of(const AttentionGradient& op, size_t row) {
  return op.causal && op.window > 0 && row + 1 > op.window ? row + 1 - op.window : 0;
}

// Past the last position that a row sees.
size_t end_of(const AttentionGradient& op, size_t row) { return op.causal ? row + 1 : op.rows; }

// Some rows of one head.
void go_back(const kernels::KernelTable& kernels, const AttentionGradient& op, const Arranged& arranged,
             const Parts& parts, const Tile& tile, size_t head, size_t row) {
  const size_t width = op.head_dim, rows = std::min(kRows, op.rows - row), padded = kernels::padded(op.rows);
  const size_t kv_head = head / (op.heads / op.kv_heads);
  const size_t base = first_of(op, row) / kLanes * kLanes, keys = end_of(op, row + rows - 1) - base,
               stride = kernels::padded(keys);
  const auto at = [&](size_t i) { return ((row + i) * op.heads + head) * width; };
  // Scores, and the gradients of probabilities: of whole strips, what a row does not see among them.
  const auto score = [&](const float* x, const float* strips, float* out) {
    for (size_t i = 0; i < rows; ++i) tile.from[i] = x + at(i), tile.to[i] = out + i * stride;
    kernels.scores[static_cast<size_t>(CacheType::f32)]({.queries = tile.from,
                                                         .scores = tile.to,
                                                         .keys = strips + (kv_head * padded + base) * width,
                                                         .meta = nullptr,
                                                         .totals = nullptr,
                                                         .count = rows,
                                                         .strips = stride / kLanes,
                                                         .width = width});
  };
  score(op.q, arranged.key_strips, tile.weights);
  score(op.gradient, arranged.value_strips, tile.changes);
  for (size_t i = 0; i < rows; ++i) {
    const size_t first = first_of(op, row + i) - base, end = end_of(op, row + i) - base, seen = end - first;
    float *const weights = tile.weights + i * stride, *const changes = tile.changes + i * stride;
    if (op.softcap > 0) {
      kernels.softcap(weights + first, seen, op.scale, op.softcap);
      std::copy_n(weights + first, seen, tile.capped);
    }
    const bool capped = op.softcap > 0;
    const float total = kernels.softmax(weights + first, seen, capped ? 1.0f : op.scale);
    kernels.tune.layers.softmax(weights + first, changes + first, seen, total, capped ? 1.0f : op.scale);
    if (capped) kernels.tune.layers.softcap(tile.capped, seen, op.scale, op.softcap, changes + first);
    for (float* const line : {weights, changes}) {
      std::fill_n(line, first, 0.0f);
      std::fill_n(line + end, stride - end, 0.0f);
    }
    std::copy_n(op.q + at(i), width, tile.q + i * width);
    std::copy_n(op.gradient + at(i), width, tile.gradient + i * width);
  }
  const auto sum = kernels.weighted_sums[static_cast<size_t>(CacheType::f32)];
  // Over the keys: what queries get.
  for (size_t i = 0; i < rows; ++i) {
    tile.from[i] = tile.changes + i * stride, tile.to[i] = op.q_gradient + at(i);
    std::fill_n(tile.to[i], width, 0.0f);
  }
  sum({.weights = tile.from,
       .sums = tile.to,
       .values = arranged.keys + (kv_head * op.rows + base) * width,
       .meta = nullptr,
       .count = rows,
       .first = 0,
       .rows = keys,
       .width = width});
  // Over the rows: what keys and values get.
  const auto add = [&](float* weights, const float* values, float* to) {
    std::fill_n(weights + rows * stride, (kRows - rows) * stride, 0.0f);
    kernels.transpose_u32(reinterpret_cast<const uint32_t*>(weights), kRows, stride, stride,
                          reinterpret_cast<uint32_t*>(tile.turned), kRows);
    for (size_t j = 0; j < keys; ++j) {
      tile.from[j] = tile.turned + j * kRows, tile.to[j] = to + (head * op.rows + base + j) * width;
    }
    sum({.weights = tile.from,
         .sums = tile.to,
         .values = values,
         .meta = nullptr,
         .count = keys,
         .first = 0,
         .rows = rows,
         .width = width});
  };
  add(tile.weights, tile.gradient, parts.values);
  add(tile.changes, tile.q, parts.keys);
}

}  // namespace

Status attention_gradient(const Context& context, const AttentionGradient& op) {
  const size_t width = op.head_dim, padded = kernels::padded(op.rows), group = op.heads / op.kv_heads;
  Scratch shared, own;
  const size_t strips = op.kv_heads * padded * width, lines = op.heads * op.rows * width;
  const size_t keys_at = shared.reserve<float>(strips), key_strips_at = shared.reserve<float>(strips);
  const size_t value_strips_at = shared.reserve<float>(strips);
  const size_t key_parts_at = shared.reserve<float>(lines), value_parts_at = shared.reserve<float>(lines);
  shared.allocate(1);
  const size_t tile = kRows * padded, capped = op.softcap > 0 ? padded : 0;
  const size_t weights_at = own.reserve<float>(tile), changes_at = own.reserve<float>(tile);
  const size_t capped_at = own.reserve<float>(capped), turned_at = own.reserve<float>(tile);
  const size_t q_at = own.reserve<float>(kRows * width), gradient_at = own.reserve<float>(kRows * width);
  const size_t from_at = own.reserve<const float*>(padded), to_at = own.reserve<float*>(padded);
  own.allocate(context.threads);
  const Arranged arranged{shared.at<float>(keys_at, 0), shared.at<float>(key_strips_at, 0),
                          shared.at<float>(value_strips_at, 0)};
  const Parts parts{shared.at<float>(key_parts_at, 0), shared.at<float>(value_parts_at, 0)};
  Status status = parallel_for(context, op.kv_heads, [&](size_t head, int) { arrange(op, arranged, head); });
  if (status != Status::ok) return status;
  status = parallel_for(context, op.heads, [&](size_t head, int slot) {
    std::fill_n(parts.keys + head * op.rows * width, op.rows * width, 0.0f);
    std::fill_n(parts.values + head * op.rows * width, op.rows * width, 0.0f);
    const Tile own_tile{own.at<float>(weights_at, slot),     own.at<float>(changes_at, slot),
                        own.at<float>(capped_at, slot),      own.at<float>(turned_at, slot),
                        own.at<float>(q_at, slot),           own.at<float>(gradient_at, slot),
                        own.at<const float*>(from_at, slot), own.at<float*>(to_at, slot)};
    for (size_t row = 0; row < op.rows; row += kRows) {
      if (context.cancel.load(std::memory_order_relaxed)) return;
      go_back(context.kernels, op, arranged, parts, own_tile, head, row);
    }
  });
  if (status != Status::ok) return status;
  // Heads that share keys and values, in their order.
  return parallel_for(context, op.rows, [&](size_t row, int) {
    for (size_t head = 0; head < op.heads; ++head) {
      const size_t from = (head * op.rows + row) * width, to = (row * op.kv_heads + head / group) * width;
      const auto take = [&](const float* part, float* gradient) {
        if (head % group == 0)
          std::copy_n(part + from, width, gradient + to);
        else
          context.kernels.add(part + from, width, gradient + to);
      };
      take(parts.keys, op.k_gradient), take(parts.values, op.v_gradient);
    }
  });
}

}  // namespace hqq::core
