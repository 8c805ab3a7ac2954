#include "../simd/avx2.h"

#include "../kernels/list.h"

const hqq::kernels::KernelTable hqq::kernels::kAvx2 = hqq::kernels::make_table<hqq::simd::Avx2>();
