#pragma once
#include "operations.h"

// Gradients of layers of language models, all in float32: from those of what an operation gives to those of what it was
// given.
namespace hqq::core {

// Of a norm: rmsNorm here, layerNorm in encoder-layers.h.
struct NormGradient {
  size_t rows, cols;
  float epsilon;
  const float* x;         // [rows, cols]  read
  const float* weight;    // [cols]        read
  const float* gradient;  // [rows, cols]  read
  float* x_gradient;      // [rows, cols]  written, and may be gradient; or added to
  bool adds;
};
Status rms_norm_gradient(const Context& context, const NormGradient& op);

// Of a text whose rows are its positions.
struct AttentionGradient {
  size_t rows, heads, kv_heads, head_dim;
  size_t window;  // positions that a row sees, its own the last; 0: all before it
  bool causal;    // false: a row sees all of the text, whatever the window
  float scale;
  float softcap;          // 0: none
  const float* q;         // [rows, heads, head_dim]     read
  const float* k;         // [rows, kv_heads, head_dim]  read
  const float* v;         // [rows, kv_heads, head_dim]  read
  const float* gradient;  // [rows, heads, head_dim]     read
  float* q_gradient;      // [rows, heads, head_dim]     written
  float* k_gradient;      // [rows, kv_heads, head_dim]  written
  float* v_gradient;      // [rows, kv_heads, head_dim]  written
};
Status attention_gradient(const Context& context, const AttentionGradient& op);

struct GatedGradient {
  size_t count;
  kernels::GatedGradient arrays;
};
Status swiglu_gradient(const Context& context, const GatedGradient& op);
Status geglu_gradient(const Context& context, const GatedGradient& op);

struct ScaleGradient {
  size_t count;
  float factor, softcap;
  const float* out;  // [count]  read
  float* gradient;   // [count]  read and written
};
Status scale_gradient(const Context& context, const ScaleGradient& op);

struct ColumnsGradient {
  size_t rows, width, from, cols;
  const float* gradient;  // [rows, cols]   read
  float* x_gradient;      // [rows, width]  read and written
};
Status columns_gradient(const Context& context, const ColumnsGradient& op);

struct Clear {
  size_t count;
  float* x;  // [count]  written
};
Status clear(const Context& context, const Clear& op);

}  // namespace hqq::core
