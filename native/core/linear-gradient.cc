#include <algorithm>

#include "gradients.h"
#include "parallel.h"
#include "scratch.h"

namespace hqq::core {
namespace {

using kernels::kChainTerms, kernels::kLeftRows, kernels::kRightCols;

// out[r][c] = sum over terms of left[r][k] * right[k][c], added to what is there or written.
struct Product {
  size_t rows, cols, terms;
  const float* left;
  size_t left_row, left_term;  // how far rows and terms are apart
  const float* right;          // [terms, cols]
  float* out;                  // [rows, cols]
  bool add;
};

// A unit of work: so many rows and columns. Smaller ones where threads would go without; bits do not depend on it, for
// each sum goes along its terms in one order.
struct UnitShape {
  size_t rows = kLeftRows, cols;

  UnitShape(const Product& p, int threads) : cols((p.cols + kRightCols - 1) / kRightCols * kRightCols) {
    const size_t enough = threads == 1 ? 1 : 4 * static_cast<size_t>(threads);
    while (down(p) * across(p) < enough && (rows > kLeastRows || cols > kRightCols))
      if (cols > kRightCols && (rows == kLeastRows || cols > 2 * rows))
        cols = (cols / 2 + kRightCols - 1) / kRightCols * kRightCols;
      else
        rows /= 2;
  }
  size_t down(const Product& p) const { return (p.rows + rows - 1) / rows; }
  size_t across(const Product& p) const { return (p.cols + cols - 1) / cols; }

  static constexpr size_t kLeastRows = kLeftRows / 4;
};

// Sums of a tile stay in registers along kChainTerms terms, while what they are made of comes, packed, from the second
// level cache (left) and from the first (right).
Status multiply(const Context& context, const Product& p) {
  const kernels::ProductKernels& kernels = context.kernels.tune.product;
  const UnitShape unit(p, context.threads);
  Scratch scratch;
  const size_t left_at = scratch.reserve<float>(kLeftRows * kChainTerms);
  const size_t right_at = scratch.reserve<float>(kRightCols * kChainTerms);
  scratch.allocate(context.threads);
  const size_t across = unit.across(p);
  return parallel_for(context, unit.down(p) * across, [&](size_t index, int slot) {
    auto* const left = scratch.at<float>(left_at, slot);
    auto* const right = scratch.at<float>(right_at, slot);
    const size_t row = index / across * unit.rows, rows = std::min(unit.rows, p.rows - row);
    const size_t first = index % across * unit.cols, last = std::min(p.cols, first + unit.cols);
    for (size_t k = 0; k < p.terms && !context.cancel.load(std::memory_order_relaxed); k += kChainTerms) {
      const size_t terms = std::min(kChainTerms, p.terms - k);
      const float* const from = p.left + row * p.left_row + k * p.left_term;
      kernels.pack_left({from, p.left_row, p.left_term, rows, terms}, left);
      for (size_t col = first; col < last; col += kRightCols) {
        const size_t cols = std::min(kRightCols, last - col);
        kernels.pack_right({p.right + k * p.cols + col, p.cols, cols, terms}, right);
        for (size_t c = 0; c < cols; c += kernels.cols)
          kernels.multiply({.left = left,
                            .right = right + c * terms,
                            .out = p.out + row * p.cols + col + c,
                            .rows = rows,
                            .cols = std::min(kernels.cols, cols - c),
                            .terms = terms,
                            .stride = p.cols,
                            .add = p.add || k > 0});
      }
    }
  });
}

}  // namespace

Status dense_linear_gradient(const Context& context, const DenseLinearGradient& op) {
  if (op.x_gradient != nullptr) {
    const Status status = multiply(context, {.rows = op.batch,
                                             .cols = op.in_features,
                                             .terms = op.out_features,
                                             .left = op.gradient,
                                             .left_row = op.out_features,
                                             .left_term = 1,
                                             .right = op.weights,
                                             .out = op.x_gradient,
                                             .add = true});
    if (status != Status::ok) return status;
  }
  if (op.weight_gradient == nullptr) return Status::ok;
  return multiply(context, {.rows = op.out_features,
                            .cols = op.in_features,
                            .terms = op.batch,
                            .left = op.gradient,
                            .left_row = 1,
                            .left_term = op.out_features,
                            .right = op.x,
                            .out = op.weight_gradient,
                            .add = false});
}

}  // namespace hqq::core
