#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "../addon/ops.h"
#include "../isa/dispatch.h"
#include "arguments.h"

// Fuzzes what JavaScript can reach of the core: an operation and its arguments are made of the input, go through the
// addon's own checks, and what these let through is run. A sanitizer watches; packed formats must give the same bytes
// on all instruction sets.
//
// Most random arguments are refused. What a refusal says ("Expected codes to have 24 elements") is then done for one
// field after the other, by a fuzzer that knows of an operation no more than its name: so it gets past the checks, and
// only just.
//
//   npm run fuzz -- --target packed
namespace hqq::fuzz {
namespace {

using Napi::Kind;
using Napi::Stored;

constexpr int kRepairs = 64;

// A copy of the arguments, for another instruction set. The steps of a sequence are left out: those before one that is
// refused have run.
void copy_arrays(const Stored& from, std::vector<std::vector<std::byte>>& to) {
  if (from.kind == Kind::typed_array) to.emplace_back(from.bytes.get(), from.bytes.get() + from.size());
  for (const auto& [name, value] : from.fields) {
    copy_arrays(*value, to);
    if (name == "segments")
      for (const auto& entry : value->entries) copy_arrays(*entry, to);
  }
}

void restore_arrays(Stored& to, const std::vector<std::vector<std::byte>>& from, size_t& at) {
  if (to.kind == Kind::typed_array) {
    std::ranges::copy(from[at], to.bytes.get());
    ++at;
  }
  for (const auto& [name, value] : to.fields) restore_arrays(*value, from, at);
}

std::vector<std::vector<std::byte>> arrays_of(const Stored& arguments) {
  std::vector<std::vector<std::byte>> arrays;
  copy_arrays(arguments, arrays);
  return arrays;
}

const kernels::KernelTable& pick_kernels() {
  std::vector<const kernels::KernelTable*> tables;
  for (const isa::Isa& isa : isa::compiled())
    if (isa.supported()) tables.push_back(isa.table);
  return *tables[input->below(tables.size())];
}

void run(const std::string& operation, Stored& arguments, const addon::Work& work) {
  const std::atomic<bool> never{false};
  const bool exact = operation == "pack" || operation == "unpack" || operation == "packWords";
  if (operation ==
      "pack") {  // that codes fit their format is lib/compute/quantize.ts's to check: other bits may go anywhere
    const auto format = static_cast<size_t>(arguments.find("format")->number);
    const Stored& codes = *arguments.find("codes");
    for (size_t i = 0; i < codes.length; ++i)
      codes.bytes[i] &= static_cast<std::byte>((1 << kFormats[format].bits) - 1);
  }
  const auto before = arrays_of(arguments);
  try {
    work.run({pick_kernels(), work.threads, never});
  } catch (const std::out_of_range&) {  // positions: what an array holds is checked when it is read
    if (before != arrays_of(arguments)) std::abort();
    return;
  }
  if (!exact) return;
  const auto got = arrays_of(arguments);
  size_t at = 0;
  restore_arrays(arguments, before, at);
  work.run({kernels::kScalar, 1, never});
  if (got == arrays_of(arguments)) return;
  std::fprintf(stderr, "%s: other bytes than those of scalar kernels\n", operation.c_str());
  std::abort();
}

}  // namespace

// How often each operation, and at last a sequence, got past the checks and was run.
uint64_t runs[addon::kOperations.size() + 1];

void fuzz(const uint8_t* data, size_t size) {
  Input bytes(data, size);
  input = &bytes;
  const size_t choice = bytes.below(addon::kOperations.size() + 1);
  const std::string operation = choice < addon::kOperations.size() ? addon::kOperations[choice].name : addon::kSequence;
  Stored arguments;
  arguments.kind = Kind::object;
  const int repairs = bytes.below(16) == 15 ? 0 : kRepairs;
  for (int attempt = 0; attempt <= repairs; ++attempt) {
    try {
      addon::Args args{Napi::Object(&arguments)};
      const addon::Work work = addon::read_work(args, operation);
      args.check_unchanged();
      run(operation, arguments, work);
      ++runs[choice];
      return;
    } catch (const Napi::Error& refusal) {
      if (!repair(arguments, refusal.what())) return;
    }
  }
}

// An operation that never gets past the checks is not fuzzed.
void report_runs() {
  std::fprintf(stderr, "passed the checks and were run:");
  for (size_t i = 0; i < std::size(runs); ++i) {
    const char* name = i < addon::kOperations.size() ? addon::kOperations[i].name : addon::kSequence;
    std::fprintf(stderr, " %s %.0f", name, static_cast<double>(runs[i]));
  }
  std::fprintf(stderr, "\n");
}

}  // namespace hqq::fuzz

std::unique_ptr<Napi::Stored> Napi::make_field(std::string_view name) { return hqq::fuzz::make_value(name); }

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  [[maybe_unused]] static const int registered = std::atexit(hqq::fuzz::report_runs);
  hqq::fuzz::fuzz(data, size);
  return 0;
}
