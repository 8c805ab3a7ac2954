#pragma once
#include <string_view>
#include <vector>

namespace hqq::isa {

// What this CPU can run and this operating system lets it: registers that the system does not save are no use.
bool has_avx2();    // AVX2, FMA, F16C, and ymm saved
bool has_avx512();  // F, BW, DQ, VL beside these, and zmm and masks saved
bool has_neon();    // part of AArch64
// Extensions of these.
bool has_avx512_vnni();
bool has_avx_vnni();  // of AVX2, in its own encoding
bool has_neon_dotprod();
bool has_neon_i8mm();  // and DotProd

// Features that kernels use and that can be used here, by the names that Linux gives them: what `hqq doctor` shows.
std::vector<std::string_view> features();

}  // namespace hqq::isa
