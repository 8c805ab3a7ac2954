#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "../kernels/table.h"

namespace hqq::test {

// What the command line asked for.
struct Options {
  std::vector<const kernels::KernelTable*> tables;            // instruction sets under test
  const kernels::KernelTable* reference = &kernels::kScalar;  // what they are compared with
  bool quick = false;                                         // fewer random cases: for sanitizers and emulators
  bool brief = false;                                         // fewer still, where real machines run the same code
  bool emulate = true;                                        // instructions that the machine lacks, where tests can
  uint64_t seed = 1;                                          // of all that is random

  // Whether the machine's own conversions are those that its specification demands.
  bool real_machine() const { return reference == &kernels::kScalar; }
  int cases(int full, int few) const { return brief ? (few + 3) / 4 : quick ? few : full; }
};

// Counts tests, and prints what fails in them: the first few of each, because a wrong kernel fails everywhere.
class Report {
 public:
  // What the checks until the next call belong to.
  void begin(const std::string& test);
  // Returns `ok`.
  bool check(bool ok, const std::string& what);
  // Prints the sums; the exit status.
  int finish();

 private:
  void end();
  std::string test_;
  int passed_ = 0, failed_ = 0, failures_ = 0;
};

inline Report report;

inline bool check(bool ok, const std::string& what) { return ok || report.check(false, what); }
// For loops over many values, where making every message would take longer than the work.
inline void fail(const std::string& what) { report.check(false, what); }

// printf as a string
[[gnu::format(printf, 1, 2)]] std::string text(const char* format, ...);

// The families of tests.
void test_conversions(const Options& options);
void test_transposes(const Options& options);
void test_pow(const Options& options);
void test_packing(const Options& options);
void test_identity(const Options& options);
void test_threads(const Options& options);
void test_solver(const Options& options);
void test_linear(const Options& options);
void test_layers(const Options& options);
void test_gradients(const Options& options);
void test_encoder_layers(const Options& options);
void test_attention(const Options& options);
void test_tune(const Options& options);

// Prints a line for every fixed case, with digests of all that it computes.
void print_digests(const kernels::KernelTable& kernels);

}  // namespace hqq::test
