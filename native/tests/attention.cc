#include <numeric>
#include <stdexcept>

#include "layers.h"

namespace hqq::test {
namespace {

struct AttentionCase {
  static constexpr const char* kName = "attention";
  size_t rows, group, kv_heads, head_dim, start, window;
  float softcap;
  Floats q, keys, values;

  static AttentionCase random(Random& random) {
    constexpr size_t kRows[] = {1, 1, 2, 5, 17};
    constexpr size_t kStarts[] = {0, 0, 1, 14, 15, 16, 17, 31, 32, 64, 130, 255};
    constexpr size_t kWindows[] = {0, 0, 1, 7, 15, 16, 17, 32, 33, 500};
    constexpr float kSizes[] = {0.1f, 1, 1, 8};  // of scores: from near equal ones to one that outweighs the rest
    AttentionCase c{random.pick(kRows),
                    1 + random.below(8),
                    1 + random.below(3),
                    random.pick(kOddSizes),
                    random.pick(kStarts),
                    random.pick(kWindows),
                    random.chance(70)   ? 0
                    : random.chance(50) ? 2.0f
                                        : 50.0f,
                    {},
                    {},
                    {}};
    c.q = Floats(random, c.rows * c.row_size(), random.pick(kSizes));
    c.keys = Floats(random, (c.start + c.rows) * c.stride(), 1);
    c.values = Floats(random, (c.start + c.rows) * c.stride(), 1);
    return c;
  }
  size_t heads() const { return group * kv_heads; }
  size_t stride() const { return kv_heads * head_dim; }
  size_t row_size() const { return heads() * head_dim; }
  float scale() const { return 1 / std::sqrt(static_cast<float>(head_dim)); }
  std::string describe() const {
    return text("%zu rows from %zu, %zu heads of %zu for %zu, window %zu, within %g", rows, start, heads(), head_dim,
                kv_heads, window, wide(softcap));
  }
  Buffers outputs(uint8_t fill) const { return one_output(rows * row_size(), fill); }
  core::Status run_rows(const core::Context& context, size_t first, size_t count, Buffers& outputs) const {
    // With room to spare, which nothing may come from.
    const size_t before = start + first, capacity = kernels::padded(before + count) + kernels::kLanes;
    Caches caches(*this, capacity, before);
    std::vector<int32_t> positions(count);
    std::iota(positions.begin(), positions.end(), static_cast<int32_t>(before));
    const core::Status status = core::attention(
        context, {count, heads(), kv_heads, head_dim, window, CacheType::f32, scale(), softcap, positions.data(),
                  q.data() + first * row_size(), keys.data() + before * stride(), values.data() + before * stride(),
                  caches.segments(capacity), outputs[0].at<float>()});
    check(caches == Caches(*this, capacity, before + count), describe() + ": what is kept of the rows");
    return status;
  }

  // Keys and values of the first positions as the operation keeps them; the rest is no number.
  struct Caches {
    std::vector<float> keys, values;

    Caches(const AttentionCase& c, size_t capacity, size_t positions)
        : keys(capacity * c.stride(), NAN), values(capacity * c.stride(), NAN) {
      constexpr size_t kBlock = kernels::kLanes;
      for (size_t j = 0; j < positions; ++j)
        for (size_t h = 0; h < c.kv_heads; ++h)
          for (size_t d = 0; d < c.head_dim; ++d) {
            const size_t from = j * c.stride() + h * c.head_dim + d, head = h * capacity * c.head_dim;
            keys[head + j / kBlock * kBlock * c.head_dim + d * kBlock + j % kBlock] = c.keys[from];
            values[head + j * c.head_dim + d] = c.values[from];
          }
    }
    std::vector<core::CacheSegment> segments(size_t capacity) {
      return {{capacity, keys.data(), values.data(), nullptr, nullptr}};
    }
    bool operator==(const Caches& other) const {
      const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
        return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
      };
      return same(keys, other.keys) && same(values, other.values);
    }
  };
  void add_errors(const Buffers& got, Errors& errors) const {
    for (size_t r = 0; r < rows; ++r)
      for (size_t h = 0; h < heads(); ++h) add_errors_of_head(r, h, got, errors);
  }
  void add_errors_of_head(size_t r, size_t h, const Buffers& got, Errors& errors) const {
    const size_t end = start + r + 1, first = window > 0 && end > window ? end - window : 0, seen = end - first;
    const size_t head = (r * heads() + h) * head_dim, column = h / group * head_dim;
    std::vector<double> weights(seen);
    double highest = -INFINITY, lowest = INFINITY, terms = 0;
    for (size_t j = 0; j < seen; ++j) {
      double score = 0, sizes = 0;
      for (size_t d = 0; d < head_dim; ++d) {
        const double term = wide(q[head + d]) * wide(keys[(first + j) * stride() + column + d]);
        score += term, sizes += std::fabs(term);
      }
      weights[j] = score * wide(scale());
      if (softcap > 0) weights[j] = wide(softcap) * std::tanh(weights[j] / wide(softcap));
      highest = std::max(highest, weights[j]), lowest = std::min(lowest, weights[j]);
      terms = std::max(terms, sizes * wide(scale()));
    }
    double total = 0;
    for (double& weight : weights) total += weight = std::exp(weight - highest);
    // Of two scores, of their difference and of its multiple; then the power's own; then those of the two sums.
    const double chain = static_cast<double>(head_dim) / 2 + 3;  // roundings on the way of a product into a score
    const double exponent = kUnit * (2 * chain * terms + 2 * (highest - lowest)) + 2 * 3e-7 * wide(softcap);
    const double relative = 2 * (exponent + kExpError) + kUnit * (static_cast<double>(seen) + roundings(seen) + 4);
    for (size_t d = 0; d < head_dim; ++d) {
      double sum = 0, sizes = 0;
      for (size_t j = 0; j < seen; ++j) {
        const double term = weights[j] / total * wide(values[(first + j) * stride() + column + d]);
        sum += term, sizes += std::fabs(term);
      }
      errors.add(element(got[0], head + d), sum, relative * sizes);
    }
  }
};

// What is no number must not be averaged away: it stays in what it is part of, and out of everything else.
void keeps_nan(const Options& options, const kernels::KernelTable& kernels) {
  report.begin(text("%s: attention keeps NaN", kernels.isa));
  const std::atomic<bool> never{false};
  for (int i = 0; i < options.cases(120, 30); ++i) {
    Random random(options.seed * 1000039 + static_cast<uint64_t>(i));
    AttentionCase c = AttentionCase::random(random);
    constexpr const char* kWhat[] = {"q", "keys", "values"};
    const size_t what = random.below(3);
    Floats& floats = what == 0 ? c.q : what == 1 ? c.keys : c.values;
    const size_t at = random.below(floats.size());
    floats.data()[at] = NAN;
    Buffers out = c.outputs(0xa5);
    c.run_rows({kernels, 1, never}, 0, c.rows, out);
    const auto is_nan_expected = [&](size_t row, size_t head, size_t d) {
      if (what == 0) return at / c.head_dim == row * c.heads() + head;
      const size_t position = at / c.stride(), end = c.start + row + 1;
      const bool seen = position < end && (c.window == 0 || position + c.window >= end);
      return seen && at % c.stride() / c.head_dim == head / c.group && (what == 1 || at % c.head_dim == d);
    };
    bool right = true;
    for (size_t e = 0; e < c.rows * c.row_size(); ++e)
      right &= std::isnan(element(out[0], e)) ==
               is_nan_expected(e / c.row_size(), e % c.row_size() / c.head_dim, e % c.head_dim);
    check(right, text("%s case %d: NaN in %s at %zu: ", kernels.isa, i, kWhat[what], at) + c.describe());
  }
}

// Rows in any order, and of any positions, give what they give one after the other: each knows its own position alone.
void takes_any_positions(const Options& options, const kernels::KernelTable& kernels) {
  report.begin(text("%s: attention of rows in any order", kernels.isa));
  const std::atomic<bool> never{false};
  for (int i = 0; i < options.cases(60, 20); ++i) {
    Random random(options.seed * 1000081 + static_cast<uint64_t>(i));
    const AttentionCase c = AttentionCase::random(random);
    const size_t capacity = kernels::padded(c.start + c.rows);
    Buffers in_order = c.outputs(0xa5);
    c.run_rows({kernels, 1, never}, 0, c.rows, in_order);
    std::vector<int32_t> order(c.rows);
    std::iota(order.begin(), order.end(), 0);
    for (size_t row = c.rows; row > 1; --row) std::swap(order[row - 1], order[random.below(row)]);
    std::vector<float> q(c.q.size()), k(c.rows * c.stride()), v(k.size());
    std::vector<int32_t> positions(c.rows);
    for (size_t row = 0; row < c.rows; ++row) {
      const auto from = static_cast<size_t>(order[row]), kept = (c.start + from) * c.stride();
      positions[row] = static_cast<int32_t>(c.start + from);
      std::copy_n(c.q.data() + from * c.row_size(), c.row_size(), q.data() + row * c.row_size());
      std::copy_n(c.keys.data() + kept, c.stride(), k.data() + row * c.stride());
      std::copy_n(c.values.data() + kept, c.stride(), v.data() + row * c.stride());
    }
    AttentionCase::Caches caches(c, capacity, c.start);
    Buffers out = c.outputs(0x5a);
    core::attention({kernels, 2, never},
                    {c.rows, c.heads(), c.kv_heads, c.head_dim, c.window, CacheType::f32, c.scale(), c.softcap,
                     positions.data(), q.data(), k.data(), v.data(), caches.segments(capacity), out[0].at<float>()});
    bool same = true;
    for (size_t row = 0; row < c.rows; ++row)
      same &= std::memcmp(out[0].data() + row * c.row_size() * sizeof(float),
                          in_order[0].data() + static_cast<size_t>(order[row]) * c.row_size() * sizeof(float),
                          c.row_size() * sizeof(float)) == 0;
    check(same, text("%s case %d: rows in another order: ", kernels.isa, i) + c.describe());
  }
}

// However a cache is cut into segments, and whatever it holds, rows get the same; and the type's own table is exact.
void takes_segments(const Options& options, const kernels::KernelTable& kernels) {
  report.begin(text("%s: attention in segments of every type", kernels.isa));
  const std::atomic<bool> never{false};
  for (int i = 0; i < options.cases(90, 30); ++i) {
    Random random(options.seed * 1000099 + static_cast<uint64_t>(i));
    AttentionCase c = AttentionCase::random(random);
    c.start = 0, c.rows = 40;
    c.q = Floats(random, c.rows * c.row_size(), 1);
    c.keys = Floats(random, c.rows * c.stride(), 1), c.values = Floats(random, c.rows * c.stride(), 1);
    const auto type = static_cast<CacheType>(i % kCacheTypes);
    std::vector<int32_t> positions(c.rows);
    std::iota(positions.begin(), positions.end(), 0);
    std::vector<std::vector<std::byte>> memory;
    const auto run = [&](const std::vector<size_t>& capacities, Buffers& out) {
      std::vector<core::CacheSegment> segments;
      memory.clear();
      for (const size_t capacity : capacities) {
        const size_t bytes = capacity * c.stride() * bytes_of(type),
                     meta = capacity * c.kv_heads * cache_groups(type, c.head_dim) * 2 * sizeof(float);
        for (const size_t size : {bytes, bytes, meta, meta}) memory.emplace_back(size, std::byte{0xff});
        std::byte* at[4];
        for (size_t part = 0; part < 4; ++part) at[part] = memory[memory.size() - 4 + part].data();
        segments.push_back({capacity, at[0], at[1], reinterpret_cast<float*>(at[2]), reinterpret_cast<float*>(at[3])});
      }
      core::attention({kernels, 2, never},
                      {c.rows, c.heads(), c.kv_heads, c.head_dim, c.window, type, c.scale(), c.softcap,
                       positions.data(), c.q.data(), c.keys.data(), c.values.data(), segments, out[0].at<float>()});
    };
    Buffers whole = c.outputs(0xa5), cut = c.outputs(0x5a);
    run({48}, whole), run({16, 16, 32}, cut);
    bool near = true;
    Buffers exact = c.outputs(0xa5);
    c.run_rows({kernels, 1, never}, 0, c.rows, exact);
    // Scores move by what keys do, times the sum of |q|; values by a level at most.
    const double level = type == CacheType::f32 ? 0 : type == CacheType::f16 ? 0x1p-11 : 2.0 / 255;
    const double moved = level * (1 + 4 * std::sqrt(static_cast<double>(c.head_dim))) + 1e-4;
    for (size_t e = 0; e < c.rows * c.row_size(); ++e)
      near &= std::fabs(element(whole[0], e) - element(exact[0], e)) <= moved;
    const bool same = std::memcmp(whole[0].data(), cut[0].data(), c.rows * c.row_size() * sizeof(float)) == 0;
    check(same && near, text("%s case %d, type %d: ", kernels.isa, i, i % kCacheTypes) + c.describe());
  }
}

// A position that the cache has no room for is refused before anything is written, whenever it comes to be there.
void refuses_positions(const kernels::KernelTable& kernels) {
  report.begin(text("%s: attention refuses positions beyond its cache", kernels.isa));
  const std::atomic<bool> never{false};
  constexpr size_t kCapacity = 32, kWidth = 4;
  std::vector<float> x(3 * kWidth, 1), out(3 * kWidth, 7), keys(kCapacity * kWidth, 7), values(keys);
  for (const int32_t wrong : {-1, 32, 33, INT32_MAX, INT32_MIN}) {
    const int32_t positions[] = {0, wrong, 1};
    bool refused = false;
    try {
      core::attention({kernels, 2, never}, {3,
                                            1,
                                            1,
                                            kWidth,
                                            0,
                                            CacheType::f32,
                                            1,
                                            0,
                                            positions,
                                            x.data(),
                                            x.data(),
                                            x.data(),
                                            {{kCapacity, keys.data(), values.data(), nullptr, nullptr}},
                                            out.data()});
    } catch (const std::out_of_range&) {
      refused = true;
    }
    const auto untouched = [](const std::vector<float>& floats) {
      return std::ranges::all_of(floats, [](float value) { return value == 7; });
    };
    check(refused && untouched(out) && untouched(keys) && untouched(values), text("position %d", wrong));
  }
}

}  // namespace

void test_attention(const Options& options) {
  for (const kernels::KernelTable* kernels : options.tables) {
    compare_layers<AttentionCase>(options, *kernels, options.cases(120, 30));
    keeps_nan(options, *kernels);
    takes_any_positions(options, *kernels);
    takes_segments(options, *kernels);
    refuses_positions(*kernels);
  }
}

}  // namespace hqq::test
