#include <algorithm>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "../core/parallel.h"
#include "../isa/dispatch.h"
#include "check.h"

// Tests of the native core on every instruction set that this machine can run.
//
//   hqq_tests [--quick] [--isa NAME]...   runs them; the last line is "N passed, N failed"
//   hqq_tests --brief ...                 with a quarter of the random cases that --quick has
//   hqq_tests --only FAMILY ...           one family of them: conversions, transposes, pow, packing, identity, linear,
//   layers,
//                                         attention, threads
//   hqq_tests --reference NAME ...        compares with that instruction set instead of scalar, where an emulator's own
//                                         arithmetic is wrong: run-with-avx512.sh
//   hqq_tests --no-emulation ...          does not run instructions that the machine lacks: emulate.h
//   hqq_tests --list                      the instruction sets, best first, and what multiplies integers in each
//   hqq_tests --digest [--isa NAME]       what fixed cases give: the same text on every machine
//
// --isa demands an instruction set: exit status 3 where it cannot run, so that a wrongly chosen emulator does not pass.
// HQQ_TEST_SEED=N repeats the random cases of a run; the seed is printed.
namespace hqq::test {

std::string text(const char* format, ...) {
  char buffer[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer, sizeof(buffer), format, arguments);
  va_end(arguments);
  return buffer;
}

void Report::begin(const std::string& test) {
  end();
  test_ = test, failures_ = 0;
}

bool Report::check(bool ok, const std::string& what) {
  constexpr int kShown = 5;
  if (!ok && ++failures_ <= kShown) std::printf("FAIL %s\n       %s\n", test_.c_str(), what.c_str());
  return ok;
}

void Report::end() {
  if (test_.empty()) return;
  ++(failures_ == 0 ? passed_ : failed_);
  if (failures_ > 0) std::printf("FAIL %s: %d checks\n", test_.c_str(), failures_);
  std::fflush(stdout);
}

int Report::finish() {
  end();
  std::printf("%d passed, %d failed\n", passed_, failed_);
  return failed_ == 0 && passed_ > 0 ? 0 : 1;
}

namespace {

constexpr int kCannotRun = 3;

uint64_t seed_of_this_run() {
  const char* given = std::getenv("HQQ_TEST_SEED");
  if (given != nullptr && *given != '\0') return std::strtoull(given, nullptr, 10);
  return static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count()) % 1000000007;
}

int usage() {
  std::fprintf(stderr,
               "usage: hqq_tests [--quick|--brief] [--no-emulation] [--only FAMILY] [--isa NAME]... [--reference NAME] "
               "| --list |\n"
               "       --digest [--isa NAME]\n");
  return 2;
}

// The kernels called `name`, or nullptr and a word about it.
const kernels::KernelTable* demand(const char* name) {
  const kernels::KernelTable* table = isa::find(name);
  if (table == nullptr) std::fprintf(stderr, "hqq_tests: this machine cannot run %s\n", name);
  return table;
}

struct Family {
  std::string_view name;
  void (*test)(const Options&);
};
constexpr Family kFamilies[] = {{"conversions", test_conversions},
                                {"transposes", test_transposes},
                                {"pow", test_pow},
                                {"packing", test_packing},
                                {"identity", test_identity},
                                {"linear", test_linear},
                                {"layers", test_layers},
                                {"gradients", test_gradients},
                                {"encoder-layers", test_encoder_layers},
                                {"attention", test_attention},
                                {"tune", test_tune},
                                {"threads", test_threads},
                                {"solver", test_solver}};

// All families, or the one that is asked for.
void run_all(const Options& options, std::string_view only) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  for (const Family& family : kFamilies)
    if (only.empty() || only == family.name) family.test(options);
  std::printf("%.1f s\n", std::chrono::duration<double>(Clock::now() - start).count());
}

}  // namespace

int run(int argc, char** argv) {
  Options options;
  bool list = false, digest = false;
  std::string_view only;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--quick")
      options.quick = true;
    else if (argument == "--brief")
      options.quick = options.brief = true;
    else if (argument == "--no-emulation")
      options.emulate = false;
    else if (argument == "--list")
      list = true;
    else if (argument == "--digest")
      digest = true;
    else if (argument == "--only" && i + 1 < argc)
      only = argv[++i];
    else if (argument == "--isa" && i + 1 < argc)
      options.tables.push_back(demand(argv[++i]));
    else if (argument == "--reference" && i + 1 < argc)
      options.reference = demand(argv[++i]);
    else
      return usage();
  }
  if (!only.empty() && std::ranges::count(kFamilies, only, &Family::name) == 0) return usage();
  if (options.reference == nullptr || std::ranges::count(options.tables, nullptr) > 0) return kCannotRun;
  if (options.tables.empty())
    for (const isa::Isa& isa : isa::compiled())
      if (isa.supported()) options.tables.push_back(isa.table);

  if (list) {
    for (const kernels::KernelTable* table : options.tables)
      std::printf("%s %s\n", table->isa, table->linear.bytes.dot);
    return 0;
  }
  if (digest) {
    print_digests(*options.tables.front());
    return 0;
  }
  options.seed = seed_of_this_run();
  std::printf("HQQ_TEST_SEED=%llu, threads: %s, instruction sets:", static_cast<unsigned long long>(options.seed),
              core::threading());
  for (const kernels::KernelTable* table : options.tables) std::printf(" %s", table->isa);
  std::printf("\n");
  run_all(options, only);
  return report.finish();
}

}  // namespace hqq::test

int main(int argc, char** argv) { return hqq::test::run(argc, argv); }
