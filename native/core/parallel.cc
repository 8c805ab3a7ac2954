#include "parallel.h"

#include <mutex>

#if defined(HQQ_USE_OPENMP)
#include <omp.h>
#else
#include <condition_variable>
#include <system_error>
#include <thread>
#endif

namespace hqq::core {
namespace {

#if defined(HQQ_USE_OPENMP)

const char* const kThreading = "openmp";

void run_together(int threads, void (*task)(void*, int), void* context) {
  // num_threads on the region, never omp_set_num_threads: that would change other users of OpenMP in the process.
#pragma omp parallel num_threads(threads)
  task(context, omp_get_thread_num());
}

#else

const char* const kThreading = "threads";

// Helper threads that sleep until there is a team to join. A team that is done before a helper wakes does not wait for
// it: helpers join under the lock, and only while the team is open.
class Pool {
 public:
  void run(int threads, void (*task)(void*, int), void* context) {
    {
      std::lock_guard lock(mutex_);
      while (helpers_ < threads - 1 && start_helper()) {
      }
      task_ = task, context_ = context, next_slot_ = 1, slots_ = threads;
    }
    wake_.notify_all();
    task(context, 0);
    std::unique_lock lock(mutex_);
    slots_ = 0;
    done_.wait(lock, [this] { return joined_ == 0; });
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
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return next_slot_ < slots_; });
      const int slot = next_slot_++;
      ++joined_;
      lock.unlock();
      task_(context_, slot);
      lock.lock();
      if (--joined_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  void (*task_)(void*, int) = nullptr;
  void* context_ = nullptr;
  int helpers_ = 0, next_slot_ = 0, slots_ = 0, joined_ = 0;
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
