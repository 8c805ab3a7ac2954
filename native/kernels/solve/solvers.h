#pragma once
#include "encode.h"
#include "hqq.h"
#include "joint.h"
#include "minmax.h"
#include "solve.h"

namespace hqq::kernels {

template <class V, class... S>
struct SolverList {
  static constexpr Solver kRows[] = {{S::kName, &S::takes, &solve_block<V, S>}...};
};

// Every solver, once, in the order of SOLVERS in lib/solvers/solvers.ts.
template <class V>
using Solvers = SolverList<V, Hqq<V>, MinMax<V>, Joint<V>>;

}  // namespace hqq::kernels
