#include "../kernels/linear.h"
#include "../simd/neon.h"

const hqq::kernels::LinearKernels hqq::kernels::kNeonDotProdLinear = hqq::kernels::make_linear<hqq::simd::NeonDotProd>();
