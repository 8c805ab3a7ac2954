#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "../core/block_types.h"
#include "../core/formats.h"
#include "../core/types.h"
#include "encoder-table.h"
#include "tune/table.h"

// What an instruction set must give. kernels/list.h fills the table from the templates beside it.
namespace hqq::kernels {

// Lanes of every vector wrapper, whatever the machine's registers hold. Sums have one partial sum per lane and end in
// one tree, so all instruction sets (and lib/backend/js) add in the same order.
inline constexpr size_t kLanes = 16;

// Most groups of a block.
inline constexpr size_t kMaxBlock = 16;

inline constexpr size_t padded(size_t size) { return (size + kLanes - 1) / kLanes * kLanes; }

// Most steps of a solver from one start.
inline constexpr size_t kMaxIterations = 1000;

// Largest group that solvers which fit scale and zero together solve beside others, a lane each.
inline constexpr size_t kSideBySide = 256;

// Which zeros a group may have: any; any, but whole at the start; a code; the middle code, with a scale of either sign.
enum class ZeroKind : uint8_t { real, rounded_start, integer, symmetric };
inline constexpr const char* kZeroKinds[] = {"float", "roundedStart", "integer", "symmetric"};

// What all groups are solved with.
struct SolveOptions {
  float max_code;
  ZeroKind zero_kind;
  bool reference_guards;
  DType meta_dtype;
  DType scale_dtype;        // scales are rounded to it before codes are chosen
  const float* parameters;  // the solver's own: see its file in solve/
  size_t parameter_count;
};

// What is read later, a run for each group of a block: kernels ask for it while they compute.
struct Ahead {
  const std::byte* from = nullptr;
  size_t bytes = 0, stride = 0;
};

// A few groups that are solved together. Rows are `stride` apart, a multiple of kLanes with padded(size) <= stride, or
// stride == size where size is a multiple of kLanes; what pads a row of `weights` or `importance` is a copy of its
// first element.
struct Block {
  const float* weights;  // [groups, stride]  read
  float* scaled;         // [groups, padded(size)]  scratch
  float* importance;     // [groups, padded(size)]  read, and scratch; null: all weights count alike
  float* lanes;          // [lane_floats(size, importance)]  scratch
  float* memory;         // [Solver::scratch(options, size)]  scratch, the solver's own
  uint8_t* codes;        // [groups, codes_stride]  written, with padding
  float* scale;          // [groups]  written by solvers, else read
  float* zero;           // [groups]  likewise
  size_t groups, size, stride, codes_stride;
  Ahead ahead = {};
};

// Floats of a block's `lanes`: weights, and their importance, of sixteen groups side by side.
inline constexpr size_t lane_floats(size_t size, bool weighted) {
  return size <= kSideBySide ? kLanes * size * (weighted ? 2 : 1) : 0;
}

// A vector for each that a strip of lanes.h has.
inline constexpr size_t strip_floats(size_t size) { return size <= kSideBySide ? kLanes * size : padded(size); }

// Sums over a block, in units of the weights.
struct BlockStats {
  double abs_error, squared_error, squared_weight;
  int iterations;
};

// A row of the list of solvers.
struct Solver {
  const char* name;
  bool (*takes)(size_t count);  // whether these may be as many parameters
  // floats of a block's `memory`, for groups of `size`
  size_t (*scratch)(const SolveOptions& options, size_t size);
  void (*solve_block)(const SolveOptions& options, const Block& block, BlockStats* stats);
};

// out[b][o] = bias[o] + sum over i < count of x[b][i] * w[o][i]; bias may be null.
struct Dense {
  const float* x;
  const float* w;
  const float* bias;
  float* out;
  size_t batch, outputs, count;
  size_t x_stride, w_stride, out_stride;
};

// The same for some rows and at most a tile's outputs, from packed memory.
struct PackedDense {
  const float* left;   // the rows of x
  const float* right;  // the rows of w
  const float* bias;   // [cols]; may be null
  float* out;          // [rows, stride]
  size_t rows, cols, count, stride;
};

struct PackedDenseKernels {
  size_t rows, cols;  // of a tile
  // to[tiles][padded(count)][rows of one], with zeros after the last row, from rows of `count` floats
  void (*pack_left)(const float* from, size_t stride, size_t rows, size_t count, float* to);
  void (*pack_right)(const float* from, size_t stride, size_t rows, size_t count, float* to);  // likewise, of cols
  void (*multiply)(const PackedDense& dense);
};

// scores[n][j] = sum over i < width of queries[n][i] * key j [i]. Sixteen keys lie side by side, a strip: [strips,
// width, kLanes].
struct Scores {
  const float* const* queries;  // [count] -> [width]
  float* const* scores;         // [count] -> [strips * kLanes]
  const void* keys;
  // Of bytes: [strips, groups, 2, kLanes], scales, then least elements; and of each query, the sums of its groups'
  // elements.
  const float* meta;
  const float* const* totals;  // [count] -> [groups]
  size_t count, strips, width;
};

// sums[n][i] += sum over j < rows of weights[n][first + j] * values[j][i], in the order of the rows.
struct WeightedSums {
  const float* const* weights;  // [count]
  float* const* sums;           // [count] -> [width]
  const void* values;           // [rows, width]
  const float* meta;            // of bytes: [rows, groups, 2], scale and least element
  size_t count, first, rows, width;
};

// x, arranged: group after group, in each quad after quad, padded, each of all rows. The rest is for bytes.
struct Input {
  const void* values;  // [groups, quads, rows, 4] signed bytes or floats
  const float* scale;  // [groups, segments, rows]: the step between levels
  const float* sum;    // [groups, segments, rows]: of the bytes
  const float* total;  // [groups, rows]: sum over segments of scale * sum
};

// How the scales and zeros of a group of a panel lie: kPanel scales, then as many zeros, where not all groups share
// one.
struct MetaForm {
  bool half = false;  // in float16, else in float32
  int zero = -1;      // what all groups share: a code; or -1

  bool is_plain() const { return !half && zero < 0; }
  size_t count() const { return zero < 0 ? 2 * kPanel : kPanel; }
  size_t bytes() const { return count() * (half ? sizeof(uint16_t) : sizeof(float)); }
};

// Panels of kPanel outputs. Strides are in bytes, from panel to panel.
struct PanelRows {
  const uint8_t* codes;   // [panels, groups, bytes_of_quads(quads)]
  const std::byte* meta;  // [panels, groups, form.bytes()]
  size_t codes_stride, meta_stride;
  size_t groups, quads;
  MetaForm form;
};

// Bands of as many rows each, arranged one after the other.
struct InputRows {
  Input first;
  size_t rows, bands;
};

// One group of a panel or of some, for a band of rows.
struct GroupRows {
  const float* meta;   // [2, kPanel]: scales, then zeros
  size_t meta_stride;  // from panel to panel
  Input in;            // of this group
  size_t rows, quads;
};

// Quads whose products are added in one chain (in two: even and odd weights); chains are then added. It bounds
// rounding.
inline constexpr size_t kChainQuads = 32;

// Integer products: the kernels that an extension of an instruction set has of its own.
struct ByteProducts {
  const char* dot;  // what multiplies
  // one row of x: out[panels][kPanel]
  void (*row[kFormatCount])(PanelRows p, const Input& in, size_t panels, float* out);
  // many rows, at most `tile_panels` panels: sums[bands][panels][rows][kPanel]; `bytes` is scratch for the codes of a
  // group of each panel, an even number of quads
  void (*rows[kFormatCount])(const PanelRows& p, const InputRows& in, size_t panels, uint8_t* bytes, float* sums);
};

struct LinearKernels {
  // scale[segments] and sum[segments] are `stride` apart
  void (*input_i8)(const float* x, size_t size, size_t padded, int8_t* q, float* scale, float* sum, size_t stride,
                   float* total);
  void (*input_f32)(const float* x, size_t size, size_t padded, float* to);
  // one row of x: out[panels][kPanel]
  void (*row_f32[kFormatCount])(PanelRows p, const Input& in, size_t panels, float* out);
  // codes of one group of a panel from bytes[quads][kPanel][4], and back
  void (*pack_panel[kFormatCount])(const uint8_t* bytes, size_t quads, uint8_t* codes);
  void (*unpack_panel[kFormatCount])(const uint8_t* codes, size_t quads, uint8_t* bytes);
  size_t tile_panels;
  // the same; `tile` is scratch, [panels][4 * quads][kPanel]
  void (*rows_f32[kFormatCount])(const PanelRows& p, const InputRows& in, size_t panels, float* tile, float* sums);
  // many rows, weights as floats: sums[rows][kPanel] += one group's products with tile[4 * quads][kPanel], times its
  // scales
  void (*tile_rows)(const float* tile, const GroupRows& g, float* sums);
  ByteProducts bytes;
};

// How blocks are found: from each start so many steps, from the best of them some more; then so many rounds of whole
// scales, of which the last ones look for codes of neighbours, too. Two numbers a start: parts of the range that are
// cut off below and above; of types without minima the share of the larger side, negative for a scale of the other
// sign, and one that is not read.
struct BlockOptions {
  const float* starts;
  size_t start_count;
  int steps, more, rounds, searches;
};

// Sums of |w - w'|, (w - w')^2 and w^2, which calls add to.
struct BlockError {
  double abs_error, squared_error, squared;
};

struct KernelTable {
  const char* isa;
  std::span<const Solver> solvers;
  // codes of scales and zeros that are given: of the options it reads max_code alone
  void (*encode_block)(const SolveOptions& options, const Block& block, BlockStats* stats);
  // as many blocks as sixteen sub-blocks are, of [kLanes * sub] weights; `importance` likewise, or null
  void (*encode_blocks)(const BlockType& type, const BlockOptions& options, const float* weights,
                        const float* importance, BlockParts* blocks, BlockError& error);
  // the least and the greatest weight of each of some groups of `size`, one after the other
  void (*extremes[kDTypes])(const void* from, size_t groups, size_t size, float* least, float* most);
  // least[c] = min(least[c], weights[c]), most likewise
  void (*take_extremes)(const float* weights, size_t count, float* least, float* most);
  // words[c] = fields[0][c] << shift(0) | fields[1][c] << shift(1) | ...
  void (*pack_row[kFormatCount])(const uint8_t* const* fields, size_t count, void* words);
  // fields[f][c] = words[c] >> shift(f) & mask, for f < present
  void (*unpack_row[kFormatCount])(const void* words, size_t count, int present, uint8_t* const* fields);
  // out = (codes - zero) * scale, every operation rounded to float32 and then to the table's type
  void (*affine[kDTypes])(const uint8_t* codes, size_t count, float scale, float zero, float* out);
  // the same with one scale and zero per element
  void (*affine_lanes[kDTypes])(const uint8_t* codes, size_t count, const float* scale, const float* zero, float* out);
  void (*widen[kDTypes])(const void* from, size_t count, float* to);
  // rounds half to even
  void (*narrow[kDTypes])(const float* from, size_t count, void* to);
  // to[c][r] = from[r][c]
  void (*transpose_u8)(const uint8_t* from, size_t rows, size_t cols, size_t from_stride, uint8_t* to,
                       size_t to_stride);
  void (*transpose_u32)(const uint32_t* from, size_t rows, size_t cols, size_t from_stride, uint32_t* to,
                        size_t to_stride);
  // Layers of language models. Their sums are fused and ordered as suits the registers: the bits are the instruction
  // set's own, and the same for any number of threads and for any batch that a row is part of.
  void (*dense)(const Dense& dense);
  PackedDenseKernels packed_dense;  // the bits of `dense`
  float (*sum_of_squares)(const float* x, size_t count);
  // out = x * factor * weight
  void (*scale)(const float* x, const float* weight, size_t count, float factor, float* out);
  // x[i], x[half + i] = x[i] cos[i] - x[half + i] sin[i], x[half + i] cos[i] + x[i] sin[i]
  void (*turn)(float* x, const float* cos, const float* sin, size_t half);
  void (*scores[kCacheTypes])(const Scores& scores);
  // scores = exp(scale * (scores - the highest)); returns their sum. `scale` is positive.
  float (*softmax)(float* scores, size_t count, float scale);
  void (*weighted_sums[kCacheTypes])(const WeightedSums& sums);
  // out = gate / (1 + exp(-gate)) * up
  void (*swiglu)(const float* gate, const float* up, size_t count, float* out);
  // out = gate / (1 + exp(-2u)) * up with u = sqrt(2 / pi) * (gate + 0.044715 gate^3)
  void (*geglu)(const float* gate, const float* up, size_t count, float* out);
  // x *= factor
  void (*multiply)(float* x, size_t count, float factor);
  // x = cap * tanh(x * factor / cap), within 3e-7 of the cap
  void (*softcap)(float* x, size_t count, float factor, float cap);
  // to += x
  void (*add)(const float* x, size_t count, float* to);
  EncoderKernels encoder;
  LinearKernels linear;
  TuneKernels tune;
};

extern const KernelTable kScalar, kAvx2, kAvx512, kNeon;
// What machines with these extensions use instead of their instruction set's own.
extern const ByteProducts kAvx512VnniBytes, kAvx2VnniBytes, kNeonDotProdBytes, kNeonI8mmBytes;

}  // namespace hqq::kernels
