#include "../kernels/products.h"
#include "../simd/avx512.h"

const hqq::kernels::ByteProducts hqq::kernels::kAvx512VnniBytes = hqq::kernels::make_bytes<hqq::simd::Avx512Vnni>();
