#pragma once
#include <atomic>
#include <cstddef>

#include "operations.h"

// The only place that knows how work is spread over threads: parallel.cc names OpenMP or its stand-in.
namespace hqq::core {

// "openmp" or "threads".
const char* threading();

// Runs task(context, slot) once on each of up to `threads` threads, the caller being slot 0, and returns when all are
// done. One team runs at a time in the process: who comes while it is at work runs alone, on slot 0, so that calls from
// many threads share the cores instead of multiplying threads. `task` must not throw.
void run_team(int threads, void (*task)(void* context, int slot), void* context);

// While one lives, threads that are done stay awake for some microseconds: operations follow each other, and waking a
// thread would take as long as some of them.
class Following {
 public:
  Following();
  ~Following();
  Following(const Following&) = delete;
  Following& operator=(const Following&) = delete;
};

// Whether one lives, and threads stay awake for it: those of OpenMP do not.
bool others_are_awake();

// Calls body(i, slot) for every i in [0, count), in no particular order; `slot` in [0, threads) says which scratch is
// the calling thread's own. Stops early when the operation is cancelled.
template <class Body>
Status parallel_for(const Context& context, size_t count, const Body& body) {
  struct Team {
    const Body& body;
    const std::atomic<bool>& cancel;
    const size_t count;
    std::atomic<size_t> next{0};
  } team{body, context.cancel, count};
  const auto work = [](void* shared, int slot) {
    auto& t = *static_cast<Team*>(shared);
    for (;;) {
      if (t.cancel.load(std::memory_order_relaxed)) return;
      const size_t i = t.next.fetch_add(1, std::memory_order_relaxed);
      if (i >= t.count) return;
      t.body(i, slot);
    }
  };
  const size_t useful = count < static_cast<size_t>(context.threads) ? count : static_cast<size_t>(context.threads);
  run_team(static_cast<int>(useful), work, &team);
  return context.cancel.load(std::memory_order_relaxed) ? Status::cancelled : Status::ok;
}

}  // namespace hqq::core
