#pragma once
#include "ops.h"

// Sequences that are read once and run many times. Reading the arguments of a language model's steps takes a tenth of
// the time of a token, and most of them are the same for every token.
namespace hqq::addon {

// `PreparedSequences` of binding.d.ts: holds what `args` read, until it is collected.
Napi::Object prepare(Napi::Env env, Args args);

}  // namespace hqq::addon
