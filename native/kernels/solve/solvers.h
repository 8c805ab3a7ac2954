#pragma once
#include "admm.h"
#include "encode.h"
#include "hqq.h"
#include "hqs.h"
#include "joint.h"
#include "kl.h"
#include "minmax.h"
#include "solve.h"

namespace hqq::kernels {

template <class S>
constexpr size_t scratch_of(const SolveOptions& options, size_t size) {
  if constexpr (requires { S::scratch(options, size); })
    return S::scratch(options, size);
  else
    return 0;
}

template <class V, class... S>
struct SolverList {
  static constexpr Solver kRows[] = {{S::kName, &S::takes, &scratch_of<S>, &solve_block<V, S>}...};
};

// Every solver, once, in the order of SOLVERS in lib/solvers/solvers.ts.
template <class V>
using Solvers = SolverList<V, Hqq<V>, MinMax<V>, Joint<V>, Hqs<V>, Admm<V>, Kl<V>>;

}  // namespace hqq::kernels
