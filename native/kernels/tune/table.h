#pragma once
#include <cstddef>
#include <cstdint>

#include "layer-table.h"

// What an instruction set gives to tuning; a part of kernels/table.h.
namespace hqq::kernels {

// Terms of a chain: they are added one after the other, and chains then. It bounds rounding, and what is packed at
// once.
inline constexpr size_t kChainTerms = 256;

// Most rows of `left` that are packed at once: a multiple of every tile's.
inline constexpr size_t kLeftRows = 96;

// Some rows of the left factor, and at most kChainTerms terms.
struct Left {
  const float* values;
  size_t row, term;  // how far rows and terms are apart: one of them is 1
  size_t rows, terms;
};

// Most columns of `right`: likewise.
inline constexpr size_t kRightCols = 128;

// Some columns of the right factor, and as many terms.
struct Right {
  const float* values;  // [terms, stride]
  size_t stride, cols, terms;
};

// out[r][c] = sum over terms of left[r][k] * right[k][c], added to what is there or written.
struct Chain {
  const float* left;   // packed
  const float* right;  // packed, of a tile's columns
  float* out;          // [rows, stride]
  size_t rows, cols, terms, stride;
  bool add;
};

// Products of matrices in tiles whose sums stay in registers.
struct ProductKernels {
  size_t rows, cols;                                  // of a tile
  void (*pack_left)(const Left& left, float* to);     // to[tiles][terms][rows], with zeros after the last row
  void (*pack_right)(const Right& right, float* to);  // to[tiles][terms][cols], likewise
  void (*multiply)(const Chain& chain);               // at most a tile's columns
};

enum class ZeroKind : uint8_t;

// A grouped matrix, the scale and zero of each group, and what is added to each weight, in levels, before it is
// rounded.
struct FakeGroups {
  size_t rows, cols;
  int axis;  // 1: each row is a group. 0: each column
  float max_code;
  const float* weights;  // [rows, cols]
  const float* offsets;  // [rows, cols]; null: 0
  const float* scale;    // [groups]
  const float* zero;     // [groups]
};

// Each may be null.
struct FakeOutputs {
  float* out;      // [rows, cols]
  uint8_t* codes;  // [rows, cols]
};

struct FakeGradients {
  const float* gradient;  // [rows, cols]  of what became of the weights
  const uint8_t* codes;   // [rows, cols]  that are given; null: they follow from the weights
  // Written; each may be null. The first two are not written where codes are given.
  float *of_weights, *of_offsets;  // [rows, cols]
  float *of_scale, *of_zero;       // [groups]
};

// A step against the signs of gradients: offsets stay in [-0.5, 0.5], scales are those of the start times a factor,
// zeros those of the start and a shift. `scale` and `zero` may be those of FakeGroups, `offsets` are.
struct FakeStep {
  ZeroKind zero_kind;
  const float* gradient;  // [rows, cols]
  float* offsets;         // [rows, cols]  read and written
  float* out;             // [rows, cols]  written, after the step
  const float *start_scale, *start_zero;
  float *factor, *shift;  // [groups]  read and written
  float *scale, *zero;    // [groups]  written
  float offset_step, factor_step, shift_step;
  float factor_range, shift_range;  // how far from 1, and from 0
};

// Of the groups [first, last).
struct FakeKernels {
  void (*quantize)(const FakeGroups& groups, const FakeOutputs& outputs, size_t first, size_t last);
  void (*gradient)(const FakeGroups& groups, const FakeGradients& gradients, size_t first, size_t last);
  void (*step)(const FakeGroups& groups, const FakeStep& step, size_t first, size_t last);
};

struct TuneKernels {
  ProductKernels product;
  FakeKernels fake;
  LayerGradientKernels layers;
};

}  // namespace hqq::kernels
