#include "../simd/neon.h"

#include "../kernels/list.h"

const hqq::kernels::KernelTable hqq::kernels::kNeon = hqq::kernels::make_table<hqq::simd::Neon>();
