#include "../simd/avx512.h"

#include "../kernels/list.h"

const hqq::kernels::KernelTable hqq::kernels::kAvx512 = hqq::kernels::make_table<hqq::simd::Avx512>();
