#include "dispatch.h"

#include "cpu.h"

namespace hqq::isa {
namespace {

// Adding an instruction set: a line here, a wrapper in ../simd, a .cc beside this file, its flags in CMakeLists.txt.
constexpr Isa kCompiled[] = {
#if defined(__x86_64__) || defined(_M_X64)
    {&kernels::kAvx512, has_avx512},
    {&kernels::kAvx2, has_avx2},
#elif defined(__aarch64__) || defined(_M_ARM64)
    {&kernels::kNeon, has_neon},
#endif
    {&kernels::kScalar, [] { return true; }},
};

}  // namespace

std::span<const Isa> compiled() { return kCompiled; }

const kernels::KernelTable* find(std::string_view name) {
  for (const Isa& isa : kCompiled)
    if (name == isa.table->isa) return isa.supported() ? isa.table : nullptr;
  return nullptr;
}

}  // namespace hqq::isa
