#include <algorithm>

#include "gradients.h"
#include "parallel.h"

namespace hqq::core {
namespace {

// Weights that are worth a unit of work.
constexpr size_t kFakeUnit = 16384;

// Calls body(first, last) for runs of groups; beside each other, of whole vectors.
template <class Body>
Status for_groups(const Context& context, const kernels::FakeGroups& g, const Body& body) {
  const size_t groups = g.axis == 1 ? g.rows : g.cols, size = g.axis == 1 ? g.cols : g.rows;
  const size_t least = g.axis == 1 ? 1 : kernels::kLanes;
  const size_t each = std::max<size_t>(1, kFakeUnit / (size * least)) * least;
  return parallel_for(context, (groups + each - 1) / each,
                      [&](size_t unit, int) { body(unit * each, std::min(groups, (unit + 1) * each)); });
}

}  // namespace

Status fake_quantize(const Context& context, const FakeQuantize& op) {
  return for_groups(context, op.groups, [&](size_t first, size_t last) {
    context.kernels.tune.fake.quantize(op.groups, op.outputs, first, last);
  });
}

Status fake_quantize_gradient(const Context& context, const FakeQuantizeGradient& op) {
  return for_groups(context, op.groups, [&](size_t first, size_t last) {
    context.kernels.tune.fake.gradient(op.groups, op.gradients, first, last);
  });
}

Status fake_quantize_step(const Context& context, const FakeQuantizeStep& op) {
  return for_groups(context, op.groups, [&](size_t first, size_t last) {
    context.kernels.tune.fake.step(op.groups, op.step, first, last);
  });
}

}  // namespace hqq::core
