#include "../kernels/list.h"
#include "../simd/avx2.h"

const hqq::kernels::KernelTable hqq::kernels::kAvx2 = hqq::kernels::make_table<hqq::simd::Avx2>();
