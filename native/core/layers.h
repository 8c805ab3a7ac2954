#pragma once
#include "operations.h"

// Layers of language models, all in float32.
namespace hqq::core {

struct DenseLinear {
  size_t batch, in_features, out_features;
  const float* x;        // [batch, in_features]         read
  const float* weights;  // [out_features, in_features]  read
  const float* bias;     // [out_features]               read; may be null
  float* out;            // [batch, out_features]        written
};
Status dense_linear(const Context& context, const DenseLinear& op);

struct RmsNorm {
  size_t rows, cols;
  float epsilon;
  const float* x;       // [rows, cols]  read
  const float* weight;  // [cols]        read
  float* out;           // [rows, cols]  written; may be x
};
Status rms_norm(const Context& context, const RmsNorm& op);

struct Rope {
  size_t rows, heads, head_dim;
  size_t turned;     // elements of each head that are turned, the first of it
  const float* cos;  // [rows, turned / 2]       read
  const float* sin;  // [rows, turned / 2]       read
  float* x;          // [rows, heads, head_dim]  read and written
};
Status rope(const Context& context, const Rope& op);

// Room for some positions of a text: keys and values of CacheType. What is bytes has scales and least elements beside
// it.
struct CacheSegment {
  size_t capacity;    // a multiple of kLanes
  void* keys;         // [kv_heads, capacity / kLanes, head_dim, kLanes]  read up to the positions, written at them
  void* values;       // [kv_heads, capacity, head_dim]                   likewise, as all that follows
  float* key_meta;    // [kv_heads, capacity / kLanes, groups, 2, kLanes]: scales, then least elements; null without
  float* value_meta;  // [kv_heads, capacity, groups, 2]
};

struct Attention {
  size_t rows, heads, kv_heads, head_dim, window;
  CacheType type;
  float scale;
  float softcap;                       // scores are bent to stay within it; 0: they are not
  const int32_t* positions;            // [rows]  read, and checked each time: they may change between runs
  const float* q;                      // [rows, heads, head_dim]     read
  const float* k;                      // [rows, kv_heads, head_dim]  read
  const float* v;                      // [rows, kv_heads, head_dim]  read
  std::vector<CacheSegment> segments;  // one after the other
  float* out;                          // [rows, heads, head_dim]     written
};
Status attention(const Context& context, const Attention& op);

struct Gated {
  size_t count;
  const float* gate;  // [count]  read
  const float* up;    // [count]  read
  float* out;         // [count]  written; may be gate or up
};
Status swiglu(const Context& context, const Gated& op);
Status geglu(const Context& context, const Gated& op);

struct Scale {
  size_t count;
  float factor;
  float softcap;  // 0: none
  float* x;       // [count]  read and written
};
Status scale(const Context& context, const Scale& op);

// out = the columns of x from `from` on
struct Columns {
  size_t rows, width, from, cols;
  const float* x;  // [rows, width]  read
  float* out;      // [rows, cols]   written
};
Status columns(const Context& context, const Columns& op);

struct Add {
  size_t count;
  const float* x;  // [count]  read
  float* to;       // [count]  read and written
};
Status add(const Context& context, const Add& op);

}  // namespace hqq::core
