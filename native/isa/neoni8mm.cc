#include "../kernels/products.h"
#include "../simd/neon.h"

const hqq::kernels::ByteProducts hqq::kernels::kNeonI8mmBytes = hqq::kernels::make_bytes<hqq::simd::NeonI8mm>();
