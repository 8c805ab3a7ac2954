#pragma once
#include <memory>

#include "../kernels/table.h"
#include "napi.h"
#include "ops.h"

// Asynchronous operations.
//
// One compute thread serves the process, in order of arrival: it is the only master of parallel regions, so fifty calls
// at once do not become fifty pools of threads (a libuv worker would own one each, for ever). Each environment (the
// main thread, or a worker thread) delivers its own results and, when it goes away, cancels its own jobs and waits for
// them.
namespace hqq::addon {

// Makes the environment's session; the addon calls it once when it is loaded into the environment.
void open_session(Napi::Env env);

// Queues `work`. `held` is kept alive until the job settles. Returns a `Task` of binding.d.ts.
Napi::Object start(Napi::Env env, const kernels::KernelTable& kernels, Work work, const Napi::Array& held);

}  // namespace hqq::addon
