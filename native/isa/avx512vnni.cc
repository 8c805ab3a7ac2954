#include "../kernels/linear.h"
#include "../simd/avx512.h"

const hqq::kernels::LinearKernels hqq::kernels::kAvx512VnniLinear = hqq::kernels::make_linear<hqq::simd::Avx512Vnni>();
