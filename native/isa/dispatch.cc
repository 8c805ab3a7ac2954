#include "dispatch.h"

#include "cpu.h"

namespace hqq::isa {
namespace {

using kernels::KernelTable;

// A table whose products are an extension's where the machine has it: the same instruction set, and the same bits.
KernelTable with(KernelTable table, [[maybe_unused]] const kernels::LinearKernels& linear, bool has_extension) {
  if (has_extension) table.linear = linear;
  return table;
}

// Adding an instruction set: a line here, a wrapper in ../simd, a .cc beside this file, its flags in CMakeLists.txt.
const auto& list() {
#if defined(__x86_64__) || defined(_M_X64)
  static const KernelTable avx512 = with(kernels::kAvx512, kernels::kAvx512VnniLinear, has_avx512_vnni());
#elif defined(__aarch64__) || defined(_M_ARM64)
  static const KernelTable neon = with(kernels::kNeon, kernels::kNeonDotProdLinear, has_neon_dotprod());
#endif
  static const Isa isas[] = {
#if defined(__x86_64__) || defined(_M_X64)
      {&avx512, has_avx512},
      {&kernels::kAvx2, has_avx2},
#elif defined(__aarch64__) || defined(_M_ARM64)
      {&neon, has_neon},
#endif
      {&kernels::kScalar, [] { return true; }},
  };
  return isas;
}

}  // namespace

std::span<const Isa> compiled() { return list(); }

const KernelTable* find(std::string_view name) {
  for (const Isa& isa : list())
    if (name == isa.table->isa) return isa.supported() ? isa.table : nullptr;
  return nullptr;
}

}  // namespace hqq::isa
