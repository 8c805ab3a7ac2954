#include <algorithm>
#include <cmath>
#include <vector>

#include "operations.h"
#include "parallel.h"
#include "scratch.h"

namespace hqq::core {
namespace {

using kernels::kLanes;

double sum_lanes(double* lanes) {
  for (size_t width = kLanes / 2; width > 0; width /= 2)
    for (size_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

}  // namespace

DistanceSums distance_of(const float* a, const float* b, size_t count) {
  double abs_error[kLanes] = {}, squared_error[kLanes] = {}, squared[kLanes] = {}, largest[kLanes] = {};
  const auto add = [&](size_t i, size_t lane) {
    const double x = a[i], error = x - static_cast<double>(b[i]), magnitude = std::fabs(error);
    abs_error[lane] += magnitude;
    squared_error[lane] += error * error;
    squared[lane] += x * x;
    largest[lane] = magnitude > largest[lane] ? magnitude : largest[lane];
  };
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) add(i + lane, lane);
  for (size_t lane = 0; i + lane < count; ++lane) add(i + lane, lane);
  return {sum_lanes(abs_error), sum_lanes(squared_error), sum_lanes(squared),
          *std::max_element(largest, largest + kLanes)};
}

Status distance(const Context& context, const Distance& op) {
  const size_t tiles = (op.count + kDistanceTile - 1) / kDistanceTile;
  std::vector<DistanceSums> parts(tiles);
  Scratch scratch;
  const size_t a_at = scratch.reserve<float>(kDistanceTile), b_at = scratch.reserve<float>(kDistanceTile);
  scratch.allocate(context.threads);
  const auto wide = [&](const void* from, DType dtype, size_t first, size_t count, float* to) -> const float* {
    if (dtype == DType::f32) return static_cast<const float*>(from) + first;
    context.kernels.widen[static_cast<size_t>(dtype)](static_cast<const uint16_t*>(from) + first, count, to);
    return to;
  };
  const Status status = parallel_for(context, tiles, [&](size_t tile, int slot) {
    const size_t first = tile * kDistanceTile, count = std::min(kDistanceTile, op.count - first);
    parts[tile] = distance_of(wide(op.a, op.a_dtype, first, count, scratch.at<float>(a_at, slot)),
                              wide(op.b, op.b_dtype, first, count, scratch.at<float>(b_at, slot)), count);
  });
  if (status != Status::ok) return status;
  DistanceSums total{};
  for (const DistanceSums& part : parts) {
    total.abs_error += part.abs_error;
    total.squared_error += part.squared_error;
    total.squared += part.squared;
    total.largest = std::max(total.largest, part.largest);
  }
  op.stats[0] = total.abs_error, op.stats[1] = total.squared_error;
  op.stats[2] = total.squared, op.stats[3] = total.largest;
  return status;
}

}  // namespace hqq::core
