#include "../kernels/products.h"
#include "../simd/neon.h"

const hqq::kernels::ByteProducts hqq::kernels::kNeonDotProdBytes = hqq::kernels::make_bytes<hqq::simd::NeonDotProd>();
