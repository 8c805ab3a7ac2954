#pragma once
#include "lanes.h"

// Where solvers that fit scale and zero together start: ranges that leave out a little at either end.
namespace hqq::kernels {

// Two numbers a start. Of float and integer zeros: how many levels of the range are cut off below and above. Of
// symmetric ones: 1, or -1 for a scale of the other sign; and how many levels the larger side reaches beyond its codes.
struct Start {
  float first, second;
};

// Starts among a solver's parameters: `count` of them as far as there are numbers, which others may have written to.
struct Starts {
  const float* numbers;
  size_t count;

  Starts(float wanted, const float* from, size_t length) : numbers(from), count(1) {
    if (wanted >= 1.0f && wanted * 2.0f <= static_cast<float>(length)) count = static_cast<size_t>(wanted);
  }
  HQQ_INLINE Start operator[](size_t i) const { return {numbers[2 * i], numbers[2 * i + 1]}; }
  HQQ_INLINE const float* end() const { return numbers + 2 * count; }
};

// What a solver is told of the groups that are solved together: what it sums over, what is known of it, and the ranges.
// Of integer zeros `real` is the range's zero before it was rounded.
template <size_t Count, bool Weighted>
struct Lanes {
  Strip<Weighted> strip;
  float* memory;  // a vector for each of the strip's, for solvers that have `scratch`
  Known<Count> known;
  double least[Count], most[Count], magnitude[Count];
  double inv_scale[Count], scale[Count], zero[Count], real[Count];
};

template <class V, size_t Count, bool Weighted>
HQQ_NOINLINE void start_all(const SolveOptions& o, Start start, const Lanes<Count, Weighted>& lanes,
                            Fitted<Count>& at) {
  const double max_code = static_cast<double>(o.max_code), first = static_cast<double>(start.first),
               second = static_cast<double>(start.second);
  double s[Count], zero[Count];
  if (o.zero_kind == ZeroKind::symmetric) {
    const double reach = static_cast<double>(middle_code(o.max_code)) + second, wanted = first < 0.0 ? -1.0 : 1.0;
    for (size_t i = 0; i < Count; ++i) {
      const double turned = lanes.most[i] > -lanes.least[i] ? -wanted : wanted;
      s[i] = turned * to_float(reach / lanes.magnitude[i]);
      s[i] = first == 0.0 ? lanes.inv_scale[i] : s[i];
      zero[i] = lanes.zero[i];
    }
  } else {
    const double ratio = max_code / (max_code - first - second);
    for (size_t i = 0; i < Count; ++i) {
      s[i] = to_float(lanes.inv_scale[i] * ratio);
      zero[i] = to_float((lanes.real[i] - first) * ratio);
    }
    if (o.zero_kind == ZeroKind::integer) {
      for (size_t i = 0; i < Count; ++i) {
        const double above = zero[i] > 0.0 ? zero[i] : 0.0, inside = above < max_code ? above : max_code;
        zero[i] = (inside + 0x1.8p52) - 0x1.8p52;  // half to even
      }
    }
  }
  for (size_t i = 0; i < Count; ++i) {
    const double size = size_of(s[i]), above = size >= 0x1p-126 ? 1.0 : 0.0, inside = size <= 0x1p120 ? above : 0.0;
    const double wide = lanes.most[i] > lanes.least[i] || o.zero_kind == ZeroKind::symmetric ? inside : 0.0;
    const double takes = size_of(zero[i]) <= kMostZero ? wide : 0.0;
    s[i] = takes > 0.0 ? s[i] : lanes.inv_scale[i];
    at.zero[i] = takes > 0.0 ? zero[i] : lanes.zero[i];
  }
  double scale[Count];
  spread<V>(V::div(V::set(1.0f), lanes_of<V>(s)), scale);
  for (size_t i = 0; i < Count; ++i) {
    at.scale[i] = s[i] == lanes.inv_scale[i] ? lanes.scale[i] : scale[i];
    at.s[i] = s[i] * lanes.known.inv_unit[i];
    at.cost[i] = static_cast<double>(INFINITY);
  }
}

// A block's groups laid out in lanes. It knows no solver: one copy serves all.
template <class V, bool Weighted>
struct LaneLayout {
  using Blocks = Groups<V, 0, Weighted>;

  // All groups of the block, sixteen at most, each in a lane.
  HQQ_NOINLINE static void side_by_side(Blocks& groups, const SolveOptions& o, Lanes<kLanes, Weighted>& lanes) {
    const Block& b = groups.block;
    const size_t count = b.size * kLanes;
    float *x = b.lanes, *importance = nullptr;
    turn(b.weights, b.stride, b, x);
    if constexpr (Weighted) turn(b.importance, padded(b.size), b, importance = b.lanes + count);
    place(groups, 0, b.groups, o, lanes);
    const auto unit_f32 = lanes_of<V>(lanes.known.unit);
    for (size_t i = 0; i < count; i += kLanes) V::store(x + i, V::mul(V::load(x + i), unit_f32));
    lanes.strip = {x, importance, b.size, kLanes}, lanes.memory = b.memory;
    know<V>(lanes.strip, b.size, lanes.known);
  }

  // One group, whose weights are the lanes.
  HQQ_NOINLINE static void alone(Blocks& groups, size_t g, const SolveOptions& o, Lanes<1, Weighted>& lanes) {
    const auto group = groups[g];
    place(groups, g, 1, o, lanes);
    const auto unit_f32 = lanes_of<V>(lanes.known.unit);
    group.over_weights(
        [&](size_t i, size_t) { V::store(group.scaled + i, V::mul(V::load(group.weights + i), unit_f32)); });
    const size_t rest = group.size % kLanes;
    lanes.strip = {group.scaled, group.importance, padded(group.size) / kLanes, rest == 0 ? kLanes : rest};
    lanes.memory = groups.block.memory;
    know<V>(lanes.strip, group.size, lanes.known);
  }

  // Where all weights count alike, each counts 1: as without importance, to the bit.
  static void level_importance(Blocks& groups) {
    for (size_t g = 0; g < groups.block.groups; ++g) {
      const auto group = groups[g];
      if (group.facts.sum_of_importance == 0)
        group.over_weights([&](size_t i, size_t) { V::store(group.importance + i, V::set(1.0f)); });
    }
  }

  template <size_t Count>
  static void write(const Known<Count>& known, const Fitted<Count>& at, Blocks& groups, size_t first, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const double inv_scale = at.s[i] * known.unit[i];  // powers of two: exact
      groups.now[first + i] = {static_cast<float>(inv_scale), static_cast<float>(at.scale[i]),
                               static_cast<float>(at.zero[i])};
    }
  }

 private:
  template <size_t Count>
  static void place(Blocks& groups, size_t first, size_t count, const SolveOptions& o, Lanes<Count, Weighted>& lanes) {
    float exponents[kLanes] = {};
    for (size_t i = 0; i < count; ++i) exponents[i] = groups.facts[first + i].magnitude;
    // the magnitudes' exponents; the other way for the unit
    const auto normal_f32 = V::max(V::load(exponents), V::set(0x1p-126f));
    const auto exponent_f32 = V::min(V::exponent(normal_f32), V::set(126.0f));
    float unit[kLanes], inv_unit[kLanes];
    V::store(unit, V::pow2(V::sub(V::set(0.0f), exponent_f32)));
    V::store(inv_unit, V::pow2(exponent_f32));
    State from[kLanes];
    for (State& one : from) one = {1, 1, 0};
    ranges<V>(&groups.facts[first], count, o, from);
    for (size_t i = 0; i < Count; ++i) {
      lanes.known.unit[i] = static_cast<double>(unit[i]), lanes.known.inv_unit[i] = static_cast<double>(inv_unit[i]);
      const Facts facts = i < count ? groups.facts[first + i] : Facts{};
      lanes.least[i] = static_cast<double>(facts.least), lanes.most[i] = static_cast<double>(facts.most);
      lanes.magnitude[i] = static_cast<double>(facts.magnitude);
      lanes.inv_scale[i] = static_cast<double>(from[i].inv_scale), lanes.scale[i] = static_cast<double>(from[i].scale);
      lanes.zero[i] = lanes.real[i] = static_cast<double>(from[i].zero);
      if (o.zero_kind == ZeroKind::integer)
        lanes.real[i] = 0.0 - (lanes.least[i] < 0.0 ? lanes.least[i] : 0.0) * lanes.inv_scale[i];
    }
  }

  // to[i][g] = from[g][i]; of groups that are not there, nothing but zeros
  static void turn(const float* from, size_t stride, const Block& b, float* to) {
    if (b.groups < kLanes)
      for (size_t i = 0; i < b.size * kLanes; i += kLanes) V::store(to + i, V::set(0.0f));
    transpose<V, uint32_t>(reinterpret_cast<const uint32_t*>(from), b.groups, b.size, stride,
                           reinterpret_cast<uint32_t*>(to), kLanes);
  }
};

// Lays a block's groups out, solves them, and writes where they stand. Returns the most steps of a group.
template <class V, class S, bool Weighted>
int solve_lanes(Groups<V, 0, Weighted>& groups, const SolveOptions& o, const typename S::Parameters& p) {
  using Layout = LaneLayout<V, Weighted>;
  const Block& b = groups.block;
  if constexpr (Weighted) Layout::level_importance(groups);
  if (b.size <= kSideBySide) {
    Lanes<kLanes, Weighted> lanes;
    Layout::side_by_side(groups, o, lanes);
    Fitted<kLanes> at;
    const int iterations = S::solve(o, p, lanes, at);
    Layout::write(lanes.known, at, groups, 0, b.groups);
    return iterations;
  }
  int most = 0;
  for (size_t g = 0; g < b.groups; ++g) {
    Lanes<1, Weighted> lanes;
    Layout::alone(groups, g, o, lanes);
    Fitted<1> at;
    const int iterations = S::solve(o, p, lanes, at);
    Layout::write(lanes.known, at, groups, g, 1);
    most = iterations > most ? iterations : most;
  }
  return most;
}

}  // namespace hqq::kernels
