#include <atomic>
#include <exception>
#include <new>
#include <string>
#include <utility>

#include "../core/parallel.h"
#include "../isa/cpu.h"
#include "../isa/dispatch.h"
#include "args.h"
#include "constants.h"
#include "napi.h"
#include "ops.h"
#include "prepared.h"
#include "queue.h"
#include "stay.h"

// `Addon` of binding.d.ts.
namespace hqq::addon {
namespace {

// Failures of C++ become errors of JavaScript that keep their cause.
template <class F>
Napi::Value guarded(Napi::Env env, F&& body) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw coded_error(env, kOutOfMemoryCode, kOutOfMemory);
  } catch (const std::exception& error) {
    throw Napi::Error::New(env, error.what());
  }
}

Args read_args(const Napi::CallbackInfo& info, size_t index) {
  if (!info[index].IsObject()) throw Napi::TypeError::New(info.Env(), "Expected args to be an object.");
  return Args(info[index].As<Napi::Object>());
}

// (operation, args) of `run` and `start`
Work read_call(const Napi::CallbackInfo& info, Args& args) {
  Work work = read_work(args, info[0].IsString() ? info[0].As<Napi::String>().Utf8Value() : "");
  args.check_unchanged();
  return work;
}

const kernels::KernelTable& kernels_of(const Napi::CallbackInfo& info) {
  return *static_cast<const kernels::KernelTable*>(info.Data());
}

Napi::Value run_now(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&info]() -> Napi::Value {
    static const std::atomic<bool> never{false};  // nobody else can run on this thread to cancel
    Args args = read_args(info, 1);
    const Work work = read_call(info, args);
    work.run(core::Context{kernels_of(info), work.threads, never});
    return info.Env().Undefined();
  });
}

Napi::Value run_later(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&info]() -> Napi::Value {
    Args args = read_args(info, 1);
    Work work = read_call(info, args);
    return start(info.Env(), kernels_of(info), std::move(work), args.held());
  });
}

Napi::Value prepare_sequences(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&info]() -> Napi::Value { return prepare(info.Env(), read_args(info, 0)); });
}

Napi::Array names_of_isas(Napi::Env env, bool runnable_only) {
  const Napi::Array names = Napi::Array::New(env);
  for (const isa::Isa& isa : isa::compiled()) {
    if (!runnable_only || isa.supported()) names.Set(names.Length(), Napi::String::New(env, isa.table->isa));
  }
  return names;
}

Napi::Array names_of_features(Napi::Env env) {
  const Napi::Array names = Napi::Array::New(env);
  for (const std::string_view name : isa::features())
    names.Set(names.Length(), Napi::String::New(env, std::string(name)));
  return names;
}

Napi::Value open(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string wanted = info[0].IsString() ? info[0].As<Napi::String>().Utf8Value() : "";
  const kernels::KernelTable* table = isa::find(wanted);
  if (table == nullptr) throw Napi::RangeError::New(env, "Expected isa to be one of `isas`, got \"" + wanted + "\".");
  void* const kernels = const_cast<kernels::KernelTable*>(table);  // Node-API knows no const; they stay read-only
  const Napi::Object backend = Napi::Object::New(env);
  backend.Set("name", "native");
  backend.Set("isa", table->isa);
  backend.Set("dot", table->linear.bytes.dot);
  backend.Set("run", Napi::Function::New(env, run_now, "run", kernels));
  backend.Set("start", Napi::Function::New(env, run_later, "start", kernels));
  backend.Set("prepare", Napi::Function::New(env, prepare_sequences, "prepare"));
  return backend;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  stay_loaded();
  open_session(env);
  exports.Set("constants", constants(env));
  exports.Set("isas", names_of_isas(env, true));
  exports.Set("compiled", names_of_isas(env, false));
  exports.Set("features", names_of_features(env));
  exports.Set("threading", core::threading());
  exports.Set("open", Napi::Function::New(env, open, "open"));
  return exports;
}

}  // namespace

NODE_API_MODULE(NODE_GYP_MODULE_NAME, init)

}  // namespace hqq::addon
