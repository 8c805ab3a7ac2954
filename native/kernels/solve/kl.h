#pragma once
#include <cmath>

#include "../../simd/math.h"
#include "starts.h"

namespace hqq::kernels {

// The range of least Kullback-Leibler divergence: sum of p log2(p / q), between the histogram of a group's weights, p,
// and that of the quantized ones, q, over ranges that leave some of its bins out. Source: the calibration of TensorRT
// (Migacz, 8-bit inference with TensorRT, 2017), whose q this is: what each level holds of p, spread evenly over the
// bins that become that level.
//
// A group of a few dozen weights says little of its distribution, and long ones have ends that little lies in: p is
// averaged over an eighth of the range. Weights beyond a range count for its last bins in p, and not in q. Scale and
// zero follow from the range as anywhere else: range.h.
template <class V>
struct Kl {
  static constexpr const char* kName = "kl";

  // How many bins; then the first bin of each range, and the one behind its last.
  struct Parameters {
    size_t bins;
    const float* ranges;
    size_t count;
  };
  static constexpr size_t kMostBins = 4096;
  static constexpr bool takes(size_t count) { return count >= 3 && count % 2 == 1; }
  static Parameters read(const SolveOptions& o) { return {bins_of(o), o.parameters + 1, (o.parameter_count - 1) / 2}; }

  // Three tables of bins + 1 rows, the first in double.
  static size_t scratch(const SolveOptions& o, size_t) { return 4 * kLanes * (bins_of(o) + 1); }

  // One range is one of the group's ends to the other's: `least` and `width`, of `bins`.
  template <size_t Count>
  struct Bins {
    double least[Count], width[Count];
  };

  template <size_t Count, bool Weighted>
  HQQ_NOINLINE static int solve(const SolveOptions& o, const Parameters& p, const Lanes<Count, Weighted>& lanes,
                                Fitted<Count>& to) {
    const size_t rows = p.bins + 1;
    auto* sums = reinterpret_cast<double*>(lanes.memory);
    float* masses = lanes.memory + 2 * kLanes * rows;  // what lies below each bin
    float* terms = masses + kLanes * rows;             // likewise, of p log2(p)
    Bins<Count> bins;
    for (size_t i = 0; i < Count; ++i) {
      const bool is_symmetric = o.zero_kind == ZeroKind::symmetric, is_integer = o.zero_kind == ZeroKind::integer;
      const double low = is_integer && lanes.least[i] > 0.0 ? 0.0 : lanes.least[i];
      const double high = is_integer && lanes.most[i] < 0.0 ? 0.0 : lanes.most[i];
      bins.least[i] = is_symmetric ? -lanes.magnitude[i] : low;
      bins.width[i] = (is_symmetric ? lanes.magnitude[i] : high) - bins.least[i];
    }
    count(p.bins, lanes, bins, sums);
    average<Count>(p.bins, sums, masses);
    sum_terms(p.bins, masses, terms);
    float first[kLanes], last[kLanes];
    search(p, static_cast<size_t>(o.max_code), masses, terms, first, last);
    for (size_t i = 0; i < Count; ++i) write(o, lanes, bins, i, first[i], last[i], p.bins, to);
    return 1;
  }

 private:
  static size_t bins_of(const SolveOptions& o) {
    const float bins = o.parameters[0], most = static_cast<float>(kMostBins);
    return bins >= 1.0f ? static_cast<size_t>(bins < most ? bins : most) : 1;
  }

  // sums[b + 1][lane] = importance of the weights in bin b, the one whose middle is next
  template <size_t Count, bool Weighted>
  static void count(size_t bins, const Lanes<Count, Weighted>& lanes, const Bins<Count>& of, double* sums) {
    for (size_t k = 0; k < (bins + 1) * Count; ++k) sums[k] = 0.0;
    double factor[Count], least[Count];
    for (size_t i = 0; i < Count; ++i) {
      const double width = of.width[i] * lanes.known.unit[i];
      factor[i] = width > 0.0 ? static_cast<double>(static_cast<int>(bins)) / width : 0.0;
      least[i] = of.least[i] * lanes.known.unit[i];
    }
    const auto factor_f32 = lanes_of<V>(factor), least_f32 = lanes_of<V>(least);
    const auto half_f32 = V::set(0.5f), top_f32 = V::set(static_cast<float>(static_cast<int>(bins - 1)));
    const Strip<Weighted>& strip = lanes.strip;
    for (size_t k = 0; k < strip.vectors; ++k) {
      const auto place_f32 = V::mul(V::sub(V::load(strip.x + k * kLanes), least_f32), factor_f32);
      const auto bin_f32 = V::round(V::min(V::max(V::sub(place_f32, half_f32), V::set(0.0f)), top_f32));
      float at[kLanes];
      V::store(at, bin_f32);
      const size_t present = k + 1 == strip.vectors ? strip.last : kLanes;
      for (size_t i = 0; i < present; ++i) {
        double* sum = sums + (static_cast<size_t>(at[i]) + 1) * Count + i % Count;
        if constexpr (Weighted)
          *sum += static_cast<double>(strip.importance[k * kLanes + i]);
        else
          *sum += 1.0;
      }
    }
  }

  // From what each bin holds to p, averaged, of which `masses` are the sums below each bin. They end with 1.
  template <size_t Count>
  static void average(size_t bins, double* sums, float* masses) {
    for (size_t b = 0; b < bins; ++b)
      for (size_t i = 0; i < Count; ++i) sums[(b + 1) * Count + i] += sums[b * Count + i];
    const size_t reach = bins / 16;
    double total[Count] = {};
    V::store(masses, V::set(0.0f));
    for (size_t b = 0; b < bins; ++b) {
      const size_t low = b > reach ? b - reach : 0, high = b + reach + 1 < bins ? b + reach + 1 : bins;
      const double share = 1.0 / static_cast<double>(static_cast<int>(high - low));
      for (size_t i = 0; i < Count; ++i) total[i] += (sums[high * Count + i] - sums[low * Count + i]) * share;
      V::store(masses + (b + 1) * kLanes, lanes_of<V>(total));
    }
    const auto all_f32 = V::load(masses + bins * kLanes);
    for (size_t b = 0; b < bins; ++b) {
      float* mass = masses + (b + 1) * kLanes;
      V::store(mass, V::div(V::load(mass), all_f32));
    }
  }

  // x log2(x); of what is next to nothing, nothing
  HQQ_INLINE static typename V::F32 entropy(typename V::F32 x) {
    return V::mul(x, simd::log2_positive<V>(V::max(x, V::set(kNothing))));
  }

  static void sum_terms(size_t bins, const float* masses, float* terms) {
    auto sum_f32 = V::set(0.0f);
    V::store(terms, sum_f32);
    for (size_t b = 0; b < bins; ++b) {
      sum_f32 = V::add(sum_f32, entropy(mass_of(masses, b, b + 1)));
      V::store(terms + (b + 1) * kLanes, sum_f32);
    }
  }

  HQQ_INLINE static typename V::F32 mass_of(const float* masses, size_t first, size_t last) {
    return V::sub(V::load(masses + last * kLanes), V::load(masses + first * kLanes));
  }

  // The range whose divergence is least; of several the first.
  static void search(const Parameters& p, size_t max_code, const float* masses, const float* terms, float* first,
                     float* last) {
    float best[kLanes], now[kLanes];
    for (size_t i = 0; i < kLanes; ++i) best[i] = INFINITY, first[i] = 0, last[i] = 0;
    for (size_t k = 0; k < p.count; ++k) {
      const size_t from = bin_of(p.ranges[2 * k], p.bins), to = bin_of(p.ranges[2 * k + 1], p.bins);
      V::store(now, to > from ? divergence(p.bins, max_code, from, to, masses, terms) : V::set(INFINITY));
      for (size_t i = 0; i < kLanes; ++i) {
        if (k > 0 && !(now[i] < best[i])) continue;
        best[i] = now[i];
        first[i] = static_cast<float>(static_cast<int>(from)), last[i] = static_cast<float>(static_cast<int>(to));
      }
    }
  }

  // Of numbers that others may have written to.
  static size_t bin_of(float number, size_t bins) {
    const auto most = static_cast<float>(static_cast<int>(bins));
    return number > 0.0f ? static_cast<size_t>(number < most ? number : most) : 0;
  }

  // sum of p log2(p) - p log2(q) over the bins from `first` to `last`, whose levels have their ends at halves
  static typename V::F32 divergence(size_t bins, size_t max_code, size_t first, size_t last, const float* masses,
                                    const float* terms) {
    const size_t width = last - first;
    const auto below_f32 = V::load(masses + first * kLanes), above_f32 = mass_of(masses, last, bins);
    const auto low_f32 = mass_of(masses, first, first + 1), high_f32 = mass_of(masses, last - 1, last);
    auto sum_f32 = mass_of(terms, first, last);
    sum_f32 = V::add(sum_f32, V::sub(entropy(V::add(low_f32, below_f32)), entropy(low_f32)));
    sum_f32 = V::add(sum_f32, V::sub(entropy(V::add(high_f32, above_f32)), entropy(high_f32)));
    sum_f32 = V::add(sum_f32, simd::log2_positive<V>(V::max(mass_of(masses, first, last), V::set(kNothing))));
    size_t from = first;
    for (size_t code = 0; code <= max_code; ++code) {
      const size_t to = code == max_code ? last : first + ((2 * code + 1) * width + max_code) / (2 * max_code);
      if (to <= from) continue;  // more levels than bins
      const auto held_f32 = mass_of(masses, from, to);
      auto mass_f32 = held_f32;
      if (from == first) mass_f32 = V::add(mass_f32, below_f32);
      if (to == last) mass_f32 = V::add(mass_f32, above_f32);
      const auto share_f32 =
          V::mul(V::max(held_f32, V::set(kNothing)), V::set(1.0f / static_cast<float>(static_cast<int>(to - from))));
      sum_f32 = V::sub(sum_f32, V::mul(mass_f32, simd::log2_positive<V>(share_f32)));
      from = to;
    }
    return sum_f32;
  }

  // The scale and the zero of a group's weights as far as they are within a range.
  template <size_t Count, bool Weighted>
  static void write(const SolveOptions& o, const Lanes<Count, Weighted>& lanes, const Bins<Count>& of, size_t i,
                    float first, float last, size_t bins, Fitted<Count>& to) {
    const double count = static_cast<double>(static_cast<int>(bins)), step = of.width[i] / count;
    const auto low = static_cast<float>(of.least[i] + static_cast<double>(first) * step);
    const auto high = static_cast<float>(of.least[i] + static_cast<double>(last) * step);
    const auto least = static_cast<float>(lanes.least[i]), most = static_cast<float>(lanes.most[i]);
    const bool cuts_low = first > 0.0f && low > least, cuts_high = static_cast<double>(last) < count && high < most;
    Facts facts{cuts_low ? low : least, cuts_high ? high : most, 0, 0, 0};
    facts.magnitude = -facts.least > facts.most ? -facts.least : facts.most;
    const State at = range_of<V>(facts, o);
    to.s[i] = static_cast<double>(at.inv_scale) * lanes.known.inv_unit[i];
    to.scale[i] = static_cast<double>(at.scale);
    to.zero[i] = static_cast<double>(at.zero);
  }

  static constexpr float kNothing = 0x1p-40f;
};

}  // namespace hqq::kernels
