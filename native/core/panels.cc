#include <algorithm>
#include <cstring>

#include "codes.h"
#include "operations.h"
#include "pages.h"
#include "parallel.h"
#include "scratch.h"

namespace hqq::core {

Status lay_out(const Context& context, const LayOut& op) {
  const Panels& p = op.panels;
  const auto narrow = context.kernels.narrow[static_cast<size_t>(p.form.half ? DType::f16 : DType::f32)];
  const auto pack = context.kernels.linear.pack_panel[static_cast<size_t>(p.format)];
  const PackedCodes packed{op.packed, p.format, p.group_size, op.step};
  const size_t groups = p.groups(), quads = p.quads(), size = 4 * quads, group_bytes = p.group_bytes();
  // For the sake of every product, too: they read it all, and in small pages wait for addresses.
  prefer_large_pages(p.codes, p.count() * groups * group_bytes);
  prefer_large_pages(p.meta, p.count() * groups * p.form.bytes());
  Scratch scratch;
  const size_t codes_at = scratch.reserve<uint8_t>(kPanel * size), quads_at = scratch.reserve<uint8_t>(kPanel * size);
  scratch.allocate(context.threads);

  return parallel_for(context, p.count(), [&](size_t panel, int slot) {
    auto* codes = scratch.at<uint8_t>(codes_at, slot);
    auto* bytes = scratch.at<uint8_t>(quads_at, slot);
    const size_t first = panel * kPanel, outputs = std::min(kPanel, p.out_features - first);
    std::memset(codes, 0, kPanel * size);  // what pads groups and panels
    for (size_t g = 0; g < groups; ++g) {
      float meta[2 * kPanel] = {};
      for (size_t j = 0; j < outputs; ++j) {
        const size_t group = (first + j) * groups + g;
        meta[j] = op.scale[group], meta[kPanel + j] = op.zero[group];
        packed.read(group, 0, p.group_size, codes + j * size);
      }
      // A quad of an output is a 32-bit word: [outputs][quads] -> [quads][outputs].
      context.kernels.transpose_u32(reinterpret_cast<const uint32_t*>(codes), kPanel, quads, quads,
                                    reinterpret_cast<uint32_t*>(bytes), kPanel);
      pack(bytes, quads, p.codes + (panel * groups + g) * group_bytes);
      narrow(meta, p.form.count(), p.meta + (panel * groups + g) * p.form.bytes());
    }
  });
}

Status expand(const Context& context, const Expand& op) {
  const Panels& p = op.panels;
  const auto unpack = context.kernels.linear.unpack_panel[static_cast<size_t>(p.format)];
  const auto widen = context.kernels.widen[static_cast<size_t>(p.form.half ? DType::f16 : DType::f32)];
  const auto affine = context.kernels.affine[static_cast<size_t>(DType::f32)];
  const size_t groups = p.groups(), quads = p.quads(), size = 4 * quads, group_bytes = p.group_bytes();
  Scratch scratch;
  const size_t codes_at = scratch.reserve<uint8_t>(kPanel * size), quads_at = scratch.reserve<uint8_t>(kPanel * size);
  scratch.allocate(context.threads);

  return parallel_for(context, p.count(), [&](size_t panel, int slot) {
    auto* codes = scratch.at<uint8_t>(codes_at, slot);
    auto* bytes = scratch.at<uint8_t>(quads_at, slot);
    const size_t first = panel * kPanel, outputs = std::min(kPanel, p.out_features - first);
    for (size_t g = 0; g < groups; ++g) {
      const size_t at = panel * groups + g;
      unpack(p.codes + at * group_bytes, quads, bytes);
      context.kernels.transpose_u32(reinterpret_cast<const uint32_t*>(bytes), quads, kPanel, kPanel,
                                    reinterpret_cast<uint32_t*>(codes), quads);
      float meta[2 * kPanel];
      std::fill_n(meta + kPanel, kPanel, static_cast<float>(p.form.zero));
      widen(p.meta + at * p.form.bytes(), p.form.count(), meta);
      for (size_t j = 0; j < outputs; ++j)
        affine(codes + j * size, p.group_size, meta[j], meta[kPanel + j],
               op.out + (first + j) * p.in_features + g * p.group_size);
    }
  });
}

}  // namespace hqq::core
