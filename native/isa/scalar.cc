#include "../kernels/list.h"
#include "../simd/scalar.h"

const hqq::kernels::KernelTable hqq::kernels::kScalar = hqq::kernels::make_table<hqq::simd::Scalar>();
