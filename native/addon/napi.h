#pragma once

// The one include of <napi.h>. CMakeLists.txt defines NAPI_VERSION, C++ exceptions, and
// NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS: without the last, a worker that is terminated while a call is under way
// makes Node-API refuse to throw, and node-addon-api then aborts the whole process.
#include <napi.h>

#include <string>

namespace hqq::addon {

// An Error whose `code` the caller can branch on; the codes are named in binding.d.ts and lib/messages/errors.ts.
inline Napi::Error coded_error(Napi::Env env, const char* code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  return error;
}

inline constexpr const char* kOutOfMemoryCode = "ERR_OUT_OF_MEMORY";
inline constexpr const char* kOutOfMemory = "There is not enough memory for the operation's scratch space.";

}  // namespace hqq::addon
