#include "../kernels/list.h"
#include "../simd/neon.h"

const hqq::kernels::KernelTable hqq::kernels::kNeon = hqq::kernels::make_table<hqq::simd::Neon>();
