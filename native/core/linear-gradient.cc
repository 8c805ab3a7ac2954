#include <algorithm>

#include "gradients.h"
#include "scratch.h"
#include "units.h"

namespace hqq::core {
namespace {

using kernels::kChainTerms, kernels::kLeftRows, kernels::kRightCols;

// out[r][c] = sum over terms of left[r][k] * right[k][c], added to what is there or written.
struct Product {
  size_t rows, cols, terms;
  const float* left;
  size_t left_row, left_term;  // how far rows and terms are apart
  const float* right;          // [terms, stride]
  float* out;                  // [rows, stride]
  size_t stride;
  bool add;
};

// Most columns, and floats, of `right` that are packed before they are multiplied.
constexpr size_t kBandCols = 32 * kRightCols, kBandFloats = size_t{1} << 21;

// Sums of a tile stay in registers along kChainTerms terms. What they are made of comes, packed, from the second-level
// cache (left: each thread packs its own) and from the first (right: packed once, all threads together).
Status multiply_band(const Context& context, const Product& p) {
  const kernels::ProductKernels& kernels = context.kernels.tune.product;
  constexpr size_t kRightFloats = kRightCols * kChainTerms;
  const Runs runs(p.rows, kernels.rows, kLeftRows, context.threads);
  const size_t all_chains = pieces_of(p.terms, kChainTerms), blocks = pieces_of(p.cols, kRightCols);
  const size_t chains = std::clamp<size_t>(kBandFloats / (blocks * kRightFloats), 1, all_chains);
  const size_t parts = runs.parts(blocks);
  Scratch shared, own;
  const size_t right_at = shared.reserve<float>(chains * blocks * kRightFloats);
  const size_t left_at = own.reserve<float>(runs.room() * kChainTerms);
  shared.allocate(1), shared.prefer_large_pages(), own.allocate(context.threads);
  auto* const right = shared.at<float>(right_at, 0);
  for (size_t first = 0; first < all_chains; first += chains) {
    const size_t some = std::min(chains, all_chains - first);
    const auto terms_of = [&](size_t chain) { return std::min(kChainTerms, p.terms - (first + chain) * kChainTerms); };
    Status status = parallel_for(context, some * blocks, [&](size_t index, int) {
      const size_t chain = index / blocks, col = index % blocks * kRightCols;
      kernels.pack_right({.values = p.right + (first + chain) * kChainTerms * p.stride + col,
                          .stride = p.stride,
                          .cols = std::min(kRightCols, p.cols - col),
                          .terms = terms_of(chain)},
                         right + index * kRightFloats);
    });
    if (status != Status::ok) return status;
    status = parallel_for(context, runs.count() * parts, [&](size_t unit, int slot) {
      const size_t row = runs.begin(unit / parts), rows = runs.rows(unit / parts), part = unit % parts;
      auto* const left = own.at<float>(left_at, slot);
      for (size_t chain = 0; chain < some; ++chain) {
        const size_t terms = terms_of(chain);
        kernels.pack_left({.values = p.left + row * p.left_row + (first + chain) * kChainTerms * p.left_term,
                           .row = p.left_row,
                           .term = p.left_term,
                           .rows = rows,
                           .terms = terms},
                          left);
        for (size_t block = part * blocks / parts; block < (part + 1) * blocks / parts; ++block) {
          const size_t col = block * kRightCols, cols = std::min(kRightCols, p.cols - col);
          for (size_t c = 0; c < cols; c += kernels.cols)
            kernels.multiply({.left = left,
                              .right = right + (chain * blocks + block) * kRightFloats + c * terms,
                              .out = p.out + row * p.stride + col + c,
                              .rows = rows,
                              .cols = std::min(kernels.cols, cols - c),
                              .terms = terms,
                              .stride = p.stride,
                              .add = p.add || first + chain > 0});
        }
      }
    });
    if (status != Status::ok) return status;
  }
  return Status::ok;
}

Status multiply(const Context& context, const Product& p) {
  if (p.rows == 0 || p.terms == 0) return Status::ok;
  for (size_t col = 0; col < p.cols; col += kBandCols) {
    Product band = p;
    band.cols = std::min(kBandCols, p.cols - col), band.right += col, band.out += col;
    const Status status = multiply_band(context, band);
    if (status != Status::ok) return status;
  }
  return Status::ok;
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
                                             .stride = op.in_features,
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
                            .stride = op.in_features,
                            .add = false});
}

}  // namespace hqq::core
