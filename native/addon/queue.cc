#include "queue.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>

namespace hqq::addon {

class Session;

namespace {

enum class Outcome { done, cancelled, out_of_memory, failed };

struct Job {
  Job(Session& session, Napi::Env env, const kernels::KernelTable& kernels, Work work)
      : session(session), kernels(kernels), work(std::move(work)), deferred(env) {}

  void run() {
    try {
      const core::Status status = work.run(core::Context{kernels, work.threads, cancel});
      outcome = status == core::Status::ok ? Outcome::done : Outcome::cancelled;
    } catch (const std::bad_alloc&) {
      outcome = Outcome::out_of_memory;
    } catch (const std::exception& error) {
      outcome = Outcome::failed;
      failure = error.what();
    }
  }

  Session& session;
  const kernels::KernelTable& kernels;
  const Work work;
  std::atomic<bool> cancel{false};

  // Written on the compute thread, read on the JavaScript thread once the job was posted.
  Outcome outcome = Outcome::cancelled;
  std::string failure;

  // The JavaScript thread's.
  Napi::Promise::Deferred deferred;
  Napi::ObjectReference held;
};

// The compute thread and what waits for it.
class Queue {
 public:
  // Never destroyed: the thread outlives main(), and would otherwise find the queue gone while the process exits.
  static Queue& shared() {
    static Queue* const queue = new Queue;
    return *queue;
  }

  void push(const std::shared_ptr<Job>& job) {
    const std::lock_guard lock(mutex_);
    if (!started_) {
      std::thread([this] { serve(); }).detach();
      started_ = true;
    }
    waiting_.push_back(job);
    arrived_.notify_one();
  }

  // Takes the job back. False: it has begun, or is done.
  bool remove(const Job* job) {
    const std::lock_guard lock(mutex_);
    const auto is_job = [job](const std::shared_ptr<Job>& other) { return other.get() == job; };
    const auto found = std::find_if(waiting_.begin(), waiting_.end(), is_job);
    if (found == waiting_.end()) return false;
    waiting_.erase(found);
    return true;
  }

  // Takes all of the session's jobs back and waits until none of them runs or is being posted.
  void leave(const Session& session) {
    std::unique_lock lock(mutex_);
    std::erase_if(waiting_, [&session](const std::shared_ptr<Job>& job) { return &job->session == &session; });
    finished_.wait(lock, [this, &session] { return running_ != &session; });
  }

 private:
  [[noreturn]] void serve();

  std::mutex mutex_;
  std::condition_variable arrived_, finished_;
  std::deque<std::shared_ptr<Job>> waiting_;
  const Session* running_ = nullptr;  // whose job runs
  bool started_ = false;
};

}  // namespace

// What one environment has under way. Lives on its JavaScript thread, save `post`.
class Session {
 public:
  explicit Session(Napi::Env env) : env_(env) {
    const Napi::String name = Napi::String::New(env, "hqq");
    check(
        napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, deliver, &deliver_));
    check(napi_unref_threadsafe_function(env, deliver_));
    // After the function was made: hooks run last in, first out, so nothing is posted to a function that is closing.
    check(napi_add_env_cleanup_hook(env, close, this));
  }

  Napi::Object start(const kernels::KernelTable& kernels, Work work, const Napi::Array& held) {
    const auto job = std::make_shared<Job>(*this, env_, kernels, std::move(work));
    job->held = Napi::Persistent(held.As<Napi::Object>());
    const Napi::Object task = Napi::Object::New(env_);
    task.Set("promise", job->deferred.Promise());
    task.Set("cancel", Napi::Function::New(env_, [this, job](const Napi::CallbackInfo&) { cancel(job); }, "cancel"));
    pending_.emplace(job.get(), job);
    try {
      Queue::shared().push(job);
    } catch (...) {  // no memory, no thread: the caller says so
      pending_.erase(job.get());
      throw;
    }
    // The event loop has to wait for the result, and for nothing once there is none to come.
    if (pending_.size() == 1) check(napi_ref_threadsafe_function(env_, deliver_));
    return task;
  }

  // From the compute thread. The session is there: `close` waits for it.
  void post(Job* job) { napi_call_threadsafe_function(deliver_, job, napi_tsfn_nonblocking); }

 private:
  void cancel(const std::shared_ptr<Job>& job) {
    if (!pending_.contains(job.get())) return;  // settled
    job->cancel.store(true, std::memory_order_relaxed);
    if (Queue::shared().remove(job.get())) settle(*job);
  }

  // `job` may be destroyed: callers hold it.
  void settle(Job& job) {
    pending_.erase(&job);
    if (pending_.empty()) check(napi_unref_threadsafe_function(env_, deliver_));
    job.held.Reset();
    switch (job.outcome) {
      case Outcome::done: job.deferred.Resolve(env_.Undefined()); break;
      case Outcome::cancelled:
        job.deferred.Reject(coded_error(env_, "ABORTED", "The operation was aborted.").Value());
        break;
      case Outcome::out_of_memory:
        job.deferred.Reject(coded_error(env_, kOutOfMemoryCode, kOutOfMemory).Value());
        break;
      case Outcome::failed: job.deferred.Reject(Napi::Error::New(env_, job.failure).Value()); break;
    }
  }

  // Called by Node on the session's thread for each job that was posted. No environment: it is going away, `close` has
  // let go of the jobs, and neither they nor the session may be touched.
  static void deliver(napi_env env, napi_value, void* session, void* data) {
    if (env == nullptr) return;
    Session& self = *static_cast<Session*>(session);
    const auto found = self.pending_.find(static_cast<Job*>(data));
    if (found == self.pending_.end()) return;
    const std::shared_ptr<Job> job = found->second;
    try {
      const Napi::HandleScope scope(env);
      self.settle(*job);
    } catch (const Napi::Error& error) {
      error.ThrowAsJavaScriptException();  // this is called from C, which no C++ exception may cross
    }
  }

  // The environment goes away: a worker is terminated, or the process exits. Its arrays go with it, so nothing may
  // still read them.
  static void close(void* session) {
    Session& self = *static_cast<Session*>(session);
    for (const auto& [pointer, job] : self.pending_) job->cancel.store(true, std::memory_order_relaxed);
    Queue::shared().leave(self);
    for (const auto& [pointer, job] : self.pending_) job->held.Reset();
    self.pending_.clear();
    napi_release_threadsafe_function(self.deliver_, napi_tsfn_abort);
  }

  void check(napi_status status) const {
    if (status != napi_ok) throw Napi::Error::New(env_);
  }

  Napi::Env env_;
  napi_threadsafe_function deliver_ = nullptr;
  std::unordered_map<const Job*, std::shared_ptr<Job>> pending_;
};

void Queue::serve() {
  for (;;) {
    std::shared_ptr<Job> job;
    {
      std::unique_lock lock(mutex_);
      arrived_.wait(lock, [this] { return !waiting_.empty(); });
      job = std::move(waiting_.front());
      waiting_.pop_front();
      running_ = &job->session;
    }
    job->run();
    job->session.post(job.get());
    {
      const std::lock_guard lock(mutex_);
      running_ = nullptr;
    }
    finished_.notify_all();
  }
}

void open_session(Napi::Env env) { env.SetInstanceData<Session>(new Session(env)); }

Napi::Object start(Napi::Env env, const kernels::KernelTable& kernels, Work work, const Napi::Array& held) {
  return env.GetInstanceData<Session>()->start(kernels, std::move(work), held);
}

}  // namespace hqq::addon
