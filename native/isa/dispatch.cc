#include "dispatch.h"

#include "cpu.h"

namespace hqq::isa {
namespace {

using kernels::KernelTable;

bool always() { return true; }

// Adding an extension: a line here, a type in ../simd, a .cc beside this file, its flags in CMakeLists.txt.
constexpr Products kProducts[] = {
#if defined(__x86_64__) || defined(_M_X64)
#if !defined(HQQ_FEW_KERNELS)  // as a build for ThreadSanitizer has them
    {"avx512", &kernels::kAvx512VnniBytes, has_avx512_vnni}, {"avx512", &kernels::kAvx512.linear.bytes, has_avx512},
#endif
#if defined(HQQ_AVX_VNNI)
    {"avx2", &kernels::kAvx2VnniBytes, has_avx_vnni},
#endif
    {"avx2", &kernels::kAvx2.linear.bytes, has_avx2},
#elif defined(__aarch64__) || defined(_M_ARM64)
#if defined(HQQ_NEON_I8MM)
    {"neon", &kernels::kNeonI8mmBytes, has_neon_i8mm},
#endif
    {"neon", &kernels::kNeonDotProdBytes, has_neon_dotprod},
    {"neon", &kernels::kNeon.linear.bytes, has_neon},
#endif
    {"scalar", &kernels::kScalar.linear.bytes, always},
};

KernelTable with_best_products(KernelTable table) {
  for (const Products& products : kProducts) {
    if (products.isa != table.isa || !products.supported()) continue;
    table.linear.bytes = *products.bytes;
    break;
  }
  return table;
}

// Adding an instruction set: a line here and one above, a wrapper in ../simd, a .cc beside this file, its flags in
// CMakeLists.txt.
const auto& list() {
#if defined(__x86_64__) || defined(_M_X64)
  static const KernelTable avx2 = with_best_products(kernels::kAvx2);
#if !defined(HQQ_FEW_KERNELS)
  static const KernelTable avx512 = with_best_products(kernels::kAvx512);
#endif
#elif defined(__aarch64__) || defined(_M_ARM64)
  static const KernelTable neon = with_best_products(kernels::kNeon);
#endif
  static const Isa isas[] = {
#if defined(__x86_64__) || defined(_M_X64)
#if !defined(HQQ_FEW_KERNELS)
      {&avx512, has_avx512},
#endif
      {&avx2, has_avx2},
#elif defined(__aarch64__) || defined(_M_ARM64)
      {&neon, has_neon},
#endif
      {&kernels::kScalar, always},
  };
  return isas;
}

}  // namespace

std::span<const Isa> compiled() { return list(); }

std::span<const Products> products() { return kProducts; }

const KernelTable* find(std::string_view name) {
  for (const Isa& isa : list())
    if (name == isa.table->isa) return isa.supported() ? isa.table : nullptr;
  return nullptr;
}

}  // namespace hqq::isa
