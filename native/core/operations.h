#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "../kernels/table.h"
#include "formats.h"
#include "types.h"

// The operations of binding.d.ts, as plain structs over borrowed memory. Lengths were checked by the caller; see
// binding.d.ts for shapes and meaning. Every operation may throw std::bad_alloc before it writes, `attention` of
// layers.h std::out_of_range too, and nothing else.
namespace hqq::core {

// What an operation runs on: an instruction set, at most `threads` threads, until somebody sets `cancel`.
struct Context {
  const kernels::KernelTable& kernels;
  int threads;
  const std::atomic<bool>& cancel;
};

enum class Status { ok, cancelled };

// How much the errors of each input feature count. Weight i of group g has that of (starts[g] + i * stride) % features.
struct Importance {
  const float* values;  // [features]  read; null: all count alike
  size_t features;
  const int32_t* starts;  // [groups]  read
  size_t stride;
};

struct Quantize {
  const void* weights;  // [rows, cols]  read
  DType dtype;
  size_t rows, cols;
  int axis;
  size_t solver;  // in the table's list
  kernels::SolveOptions options;
  Importance importance;
  Format format;
  size_t step;
  size_t block;
  void* packed;   // [step, cols]  written
  float* scale;   // [groups]      written
  float* zero;    // [groups]      written
  double* stats;  // [5]           written
};
Status quantize(const Context& context, const Quantize& op);
// Codes of scales and zeros that are given: these are read, and no solver is.
Status encode(const Context& context, const Quantize& op);

// Weights to ggml's blocks: [rows, cols], whose columns fill blocks.
struct EncodeBlocks {
  const void* weights;  // [rows, cols]  read
  DType dtype;
  size_t rows, cols;
  const BlockType* type;
  kernels::BlockOptions options;
  const float* importance;  // [cols]  read; null: all count alike
  uint8_t* blocks;          // [rows, cols / type.weights, type.bytes]  written
  double* stats;            // [5]  written
};
Status encode_blocks(const Context& context, const EncodeBlocks& op);

// Blocks as numbers; or, where `codes` is not null, as codes and a scale and zero for each sub-block.
struct DecodeBlocks {
  const uint8_t* blocks;  // [count]  read
  const BlockType* type;
  size_t count;
  float* out;      // [count, type.weights]  written; or null
  uint8_t* codes;  // [count, type.weights]  written; or null
  float* scale;    // [count, type.subs()]   likewise
  float* zero;     // [count, type.subs()]   likewise
};
Status decode_blocks(const Context& context, const DecodeBlocks& op);

// The least and the greatest weight of each group; of a group that holds a NaN, anything.
struct Extremes {
  const void* weights;  // [rows, cols]  read
  DType dtype;
  size_t rows, cols;
  int axis;
  float* least;  // [groups]  written
  float* most;   // [groups]  written
};
Status extremes(const Context& context, const Extremes& op);

struct Pack {
  size_t rows, cols, step;
  Format format;
  uint8_t* codes;  // [rows, cols]  read by pack, written by unpack
  void* packed;    // [step, cols]  written by pack, read by unpack
};
Status pack(const Context& context, const Pack& op);
Status unpack(const Context& context, const Pack& op);

// Codes in 32-bit words: each line of codes is one of words. A line is a row, as one bit stream; or, of 4 bits,
// `across` eight rows, of which a word has a code each.
struct PackWords {
  const uint8_t* codes;  // [rows, cols]  read
  size_t rows, cols;
  unsigned bits;
  bool across;
  uint8_t order[8];  // the row of each code of a word, from the lowest bits on
  bool turned;       // lines are columns of words, not rows
  size_t step;       // words from one row of these to the next
  int32_t* words;    // written
  size_t lines() const { return across ? rows / 8 : rows; }
  size_t width() const { return across ? cols : (cols * bits + 31) / 32; }
};
Status pack_words(const Context& context, const PackWords& op);

// A quantized matrix.
struct Quantized {
  const void* packed;  // [step, cols]  read
  Format format;
  size_t rows, cols, step;
  int axis;
  const float* scale;  // [groups]  read
  const float* zero;   // [groups]  read
};

struct Dequantize : Quantized {
  DType dtype;
  bool round_each;
  void* out;  // [rows, cols]  written
};
Status dequantize(const Context& context, const Dequantize& op);

// Elements whose distances are summed together, in lanes; the sums of tiles are added in order.
inline constexpr size_t kDistanceTile = 16384;
struct Distance {
  const void* a;  // [count]  read
  DType a_dtype;
  const void* b;  // [count]  read
  DType b_dtype;
  size_t count;
  double* stats;  // [4]  written
};
Status distance(const Context& context, const Distance& op);
// Of one tile, at most.
struct DistanceSums {
  double abs_error, squared_error, squared, largest;
};
DistanceSums distance_of(const float* a, const float* b, size_t count);

// to = from, rounded to its type
struct Convert {
  const void* from;  // [count]  read
  DType from_dtype;
  void* to;  // [count]  written
  DType to_dtype;
  size_t count;
};
Status convert(const Context& context, const Convert& op);

struct Turn {
  const void* from;  // [rows, stride]  read
  DType dtype;
  size_t rows, stride, first, cols;
  void* to;  // [cols, rows]  written
};
Status turn(const Context& context, const Turn& op);  // to[c][r] = from[r][first + c]

// Asks for large pages: pages.h. Tells how far the array is from where one may begin.
struct LargePages {
  float* array;  // [count]  neither read nor written
  size_t count;
  int32_t* to_page;  // [1]  written: bytes from its begin to where the next large page may
};
Status large_pages(const Context& context, const LargePages& op);

// Gives memory that is free in the allocator back to the system (glibc; elsewhere nothing). Call it after a collection.
struct Trim {};
Status trim(const Context& context, const Trim& op);

// A weight matrix whose groups are parts of rows, laid out for `linear`: see formats.h.
struct Panels {
  Format format;
  size_t out_features, in_features, group_size;
  uint8_t* codes;   // [panels, groups of a row, bytes_of_quads]
  std::byte* meta;  // [panels, groups of a row, form.bytes()]
  kernels::MetaForm form;

  size_t count() const { return (out_features + kPanel - 1) / kPanel; }
  size_t groups() const { return in_features / group_size; }
  size_t quads() const { return quads_of(format, group_size); }
  size_t group_bytes() const { return bytes_of_quads(format, quads()); }
};

struct LayOut {
  Panels panels;       // written
  const void* packed;  // [step, group_size]  read
  size_t step;
  const float* scale;  // [groups]  read
  const float* zero;   // [groups]  read
};
Status lay_out(const Context& context, const LayOut& op);

struct Expand {
  Panels panels;  // read
  float* out;     // [out_features, in_features]  written
};
Status expand(const Context& context, const Expand& op);

struct Layer {
  Panels panels;      // read
  const float* bias;  // [out_features]  read; or null
  float* out;         // [batch, out_features]  written
};

// y = x . W^T + bias for several weights of one input.
struct Linear {
  std::vector<Layer> layers;
  const float* x;  // [batch, in_features]  read
  size_t batch;
  bool int8;
};
Status linear(const Context& context, const Linear& op);

// The same for any quantized matrix, dequantized in tiles: slower.
struct LinearTiled : Quantized {
  size_t out_features, in_features;
  const float* bias;  // [out_features]  read; or null
  const float* x;     // [batch, in_features]  read
  size_t batch;
  float* out;  // [batch, out_features]  written
};
Status linear_tiled(const Context& context, const LinearTiled& op);

}  // namespace hqq::core
