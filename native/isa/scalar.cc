// Vectors are arrays here: loops over them that are inlined whole take the compiler more than twice as long, for
// nothing.
#define HQQ_INLINE_LAMBDA

#include "../simd/scalar.h"

#include "../kernels/list.h"

const hqq::kernels::KernelTable hqq::kernels::kScalar = hqq::kernels::make_table<hqq::simd::Scalar>();
