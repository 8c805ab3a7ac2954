#include "../kernels/products.h"
#include "../simd/avx2.h"

const hqq::kernels::ByteProducts hqq::kernels::kAvx2VnniBytes = hqq::kernels::make_bytes<hqq::simd::Avx2Vnni>();
