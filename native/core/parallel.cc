#include "parallel.h"

#include <mutex>

#if defined(HQQ_USE_OPENMP)
#include <omp.h>
#else
#include <chrono>
#include <condition_variable>
#include <system_error>
#include <thread>
#endif

namespace hqq::core {
namespace {

std::atomic<int> g_following{0};

#if defined(HQQ_USE_OPENMP)

const char* const kThreading = "openmp";

void run_together(int threads, void (*task)(void*, int), void* context) {
  // num_threads on the region, never omp_set_num_threads: that would change other users of OpenMP in the process.
#pragma omp parallel num_threads(threads)
  task(context, omp_get_thread_num());
}

#else

const char* const kThreading = "threads";

// Waits a little while for `done()` without sleeping, where more operations follow. Others that want the core have it.
template <class Done>
void stay_awake(const Done& done) {
  constexpr std::chrono::microseconds kLong{50};
  constexpr int kLooks = 200;  // some hundred nanoseconds: as long as asking the system who else wants the core
  const auto end = std::chrono::steady_clock::now() + kLong;
  while (g_following.load(std::memory_order_relaxed) > 0 && std::chrono::steady_clock::now() < end) {
    for (int i = 0; i < kLooks; ++i)
      if (done()) return;
    std::this_thread::yield();
  }
}

// Helper threads that sleep until there is a team to join. A team that is done before a helper wakes does not wait for
// it: helpers join under the lock, and only while the team is open.
class Pool {
 public:
  void run(int threads, void (*task)(void*, int), void* context) {
    bool asleep = false;
    {
      std::lock_guard lock(mutex_);
      while (helpers_ < threads - 1 && start_helper()) {
      }
      task_ = task, context_ = context, next_slot_ = 1, slots_ = threads;
      teams_.fetch_add(1, std::memory_order_release);
      asleep = sleeping_ > 0;
    }
    if (asleep) wake_.notify_all();
    task(context, 0);
    std::unique_lock lock(mutex_);
    slots_ = 0;
    const auto all_left = [this] { return joined_.load(std::memory_order_acquire) == 0; };
    if (all_left()) return;
    lock.unlock();
    stay_awake(all_left);
    lock.lock();
    done_.wait(lock, all_left);
  }

 private:
  bool start_helper() {
    try {
      std::thread([this] { help(); }).detach();
    } catch (const std::system_error&) {
      return false;  // the system has no more threads: those that there are do the work
    }
    ++helpers_;
    return true;
  }

  void help() {
    const auto open = [this] { return next_slot_ < slots_; };
    std::unique_lock lock(mutex_);
    for (;;) {
      if (!open()) {
        const unsigned seen = teams_.load(std::memory_order_relaxed);
        lock.unlock();
        stay_awake([&] { return teams_.load(std::memory_order_acquire) != seen; });
        lock.lock();
      }
      ++sleeping_;
      wake_.wait(lock, open);
      --sleeping_;
      const int slot = next_slot_++;
      joined_.fetch_add(1, std::memory_order_relaxed);
      lock.unlock();
      task_(context_, slot);
      lock.lock();
      if (joined_.fetch_sub(1, std::memory_order_release) == 1) done_.notify_one();
    }
  }

  std::mutex mutex_;  // of all but what is atomic, which is written under it, too
  std::condition_variable wake_, done_;
  void (*task_)(void*, int) = nullptr;
  void* context_ = nullptr;
  int helpers_ = 0, sleeping_ = 0, next_slot_ = 0, slots_ = 0;
  std::atomic<int> joined_{0};
  std::atomic<unsigned> teams_{0};
};

void run_together(int threads, void (*task)(void*, int), void* context) {
  // Never destroyed: helpers may outlive the static objects of a process that exits.
  static Pool& pool = *new Pool;
  pool.run(threads, task, context);
}

#endif

std::mutex g_team;

}  // namespace

const char* threading() { return kThreading; }

Following::Following() { g_following.fetch_add(1, std::memory_order_relaxed); }
Following::~Following() { g_following.fetch_sub(1, std::memory_order_relaxed); }

#if defined(HQQ_USE_OPENMP)
bool others_are_awake() { return false; }
#else
bool others_are_awake() { return g_following.load(std::memory_order_relaxed) > 0; }
#endif

void run_team(int threads, void (*task)(void*, int), void* context) {
  if (threads > 1) {
    if (const std::unique_lock team(g_team, std::try_to_lock); team.owns_lock()) {
      run_together(threads, task, context);
      return;
    }
  }
  task(context, 0);
}

}  // namespace hqq::core
