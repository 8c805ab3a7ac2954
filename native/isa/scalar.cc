// Lambdas are left to the compiler: where it inlines what it wants to, it takes a quarter less time, and its code is as
// fast.
#define HQQ_INLINE_LAMBDA

#include "../simd/scalar.h"

#include "../kernels/list.h"

const hqq::kernels::KernelTable hqq::kernels::kScalar = hqq::kernels::make_table<hqq::simd::Scalar>();
