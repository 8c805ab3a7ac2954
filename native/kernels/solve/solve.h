#pragma once
#include "finish.h"
#include "starts.h"

// A solver finds the scale and the zero of each group. It is a template over V in a file of its own, and a row of
// solvers.h. Codes and statistics are finish.h's. There are two kinds: of those that step a group (SolvesGroups) a
// vector holds weights of one; those that fit scale and zero to codes (SolvesLanes) are given groups as lanes.h lays
// them out.
namespace hqq::kernels {

//   kName                            as lib/solvers/solvers.ts spells it
//   takes(count)                     whether these may be as many parameters: checked before they are read
//   read(options)                    its parameters
template <class S>
concept SolverKernel = requires(const SolveOptions& o, size_t count) {
  static_cast<const char*>(S::kName);
  static_cast<bool>(S::takes(count));
  static_cast<typename S::Parameters>(S::read(o));
};

//   solve(options, parameters, lanes, fitted)    where the groups of some lanes end; returns the most steps of one
template <class S>
concept SolvesLanes = SolverKernel<S> && requires(const SolveOptions& o, const typename S::Parameters& p,
                                                  const Lanes<kLanes, false>& lanes, Fitted<kLanes>& fitted) {
  static_cast<int>(S::solve(o, p, lanes, fitted));
};

//   round(parameters, iteration)     what a step needs of them, the same for all groups
//   iterations(parameters)           most steps from a start
//   kStarts                          how many starts it tries
template <class S>
concept SteppingKernel = SolverKernel<S> && requires(const typename S::Parameters& p, int i) {
  static_cast<int>(S::iterations(p));
  S::round(p, i);
  static_cast<int>(S::kStarts);
};

//   start(group, options, parameters, index)     the state that it starts from; FromRange: the range, which all can
//   have step(group, options, round)                  moves the group's state; whether another step may move it
//   further.
//                                                One that changes inv_scale calls scale_weights
//   objective(group, options, parameters)        of several starts the one that ends with the least is kept
template <class S, class Group>
concept SolvesGroups =
    SteppingKernel<S> && requires(const Group& g, const SolveOptions& o, const typename S::Parameters& p, int i) {
      static_cast<State>(S::start(g, o, p, i));
      static_cast<bool>(S::step(g, o, S::round(p, i)));
      requires S::kStarts == 1 || requires { static_cast<double>(S::objective(g, o, p)); };
    };

//   step_together(groups, options, parameters)   optional: all steps of all groups of a block, to the same bits, for
//                                                groups of at most kSideBySide weights. Returns the most of a group
template <class S, class Groups>
concept StepsTogether = requires(Groups& groups, const SolveOptions& o, const typename S::Parameters& p) {
  static_cast<int>(S::step_together(groups, o, p));
};

// Steps all groups together, so that the processor works on several at a time; those that no longer move leave. Returns
// the most steps of a group.
template <class S, class Groups>
HQQ_INLINE int iterate(Groups& groups, size_t count, const SolveOptions& o, const typename S::Parameters& p) {
  if constexpr (StepsTogether<S, Groups>)
    if (groups[0].count() <= kSideBySide) return S::step_together(groups, o, p);
  const int most = S::iterations(p);
  uint8_t moving[kMaxBlock];
  for (size_t g = 0; g < kMaxBlock; ++g) moving[g] = static_cast<uint8_t>(g);
  if (most == 0) count = 0;
  int iteration = 0;
  for (; iteration < most && count > 0; ++iteration) {
    const auto round = S::round(p, iteration);
    size_t left = 0;
    for (size_t k = 0; k < count; ++k) {
      const uint8_t g = moving[k];
      moving[left] = g;
      left += static_cast<size_t>(S::step(groups[g], o, round));
    }
    count = left;
  }
  return iteration;
}

// From each start in turn. Returns the most steps of a group.
template <class V, class S, class Groups>
HQQ_INLINE int step_groups(Groups& groups, const SolveOptions& o) {
  const Block& b = groups.block;
  const auto parameters = S::read(o);
  int most = 0;
  State best[kMaxBlock];
  double least[kMaxBlock];
  for (int start = 0; start < S::kStarts; ++start) {
    if constexpr (requires { S::kFromRange; })
      ranges<V>(groups.facts, b.groups, o, groups.now);
    else
      for (size_t g = 0; g < b.groups; ++g) groups.now[g] = S::start(groups[g], o, parameters, start);
    groups.scale_weights();
    const int iterations = iterate<S>(groups, b.groups, o, parameters);
    most = iterations > most ? iterations : most;
    if constexpr (S::kStarts > 1) {
      for (size_t g = 0; g < b.groups; ++g) {
        const double objective = S::objective(groups[g], o, parameters);
        if (start == 0 || objective < least[g]) least[g] = objective, best[g] = groups.now[g];
      }
    }
  }
  if constexpr (S::kStarts > 1) {
    for (size_t g = 0; g < b.groups; ++g) groups.now[g] = best[g];
    groups.scale_weights();
  }
  return most;
}

template <class V, SolverKernel S, size_t Size, bool Weighted>
  requires SolvesLanes<S> || SolvesGroups<S, Group<V, Size, Weighted>>
void solve_block_of(const SolveOptions& o, const Block& b, BlockStats* stats) {
  Groups<V, Size, Weighted> groups(b);
  groups.measure();
  if constexpr (Weighted)
    for (size_t g = 0; g < b.groups; ++g) groups[g].weigh();
  int iterations;
  if constexpr (SolvesLanes<S>) {
    iterations = solve_lanes<V, S>(groups, o, S::read(o));
    groups.scale_weights();
  } else {
    iterations = step_groups<V, S>(groups, o);
  }
  stats->iterations = iterations > stats->iterations ? iterations : stats->iterations;
  finish(groups, o, b, stats);
}

template <class V, SolverKernel S>
void solve_block(const SolveOptions& options, const Block& block, BlockStats* stats) {
  if (block.importance != nullptr) return solve_block_of<V, S, 0, true>(options, block, stats);
  if constexpr (SolvesLanes<S>) {
    // Groups in lanes are turned whatever their size: to know it gains nothing.
    solve_block_of<V, S, 0, false>(options, block, stats);
  } else {
    switch (block.size) {
      case 32: return solve_block_of<V, S, 32, false>(options, block, stats);
      case 64: return solve_block_of<V, S, 64, false>(options, block, stats);
      case 128: return solve_block_of<V, S, 128, false>(options, block, stats);
      default: return solve_block_of<V, S, 0, false>(options, block, stats);
    }
  }
}

}  // namespace hqq::kernels
