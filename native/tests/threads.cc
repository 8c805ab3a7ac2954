#include <atomic>
#include <chrono>
#include <optional>
#include <string_view>
#include <thread>

#include "../core/parallel.h"
#include "cases.h"

namespace hqq::test {
namespace {

void loops(const Options& options) {
  report.begin(text("parallel_for (%s) does everything once", core::threading()));
  for (int round = 0; round < options.cases(50, 3); ++round) {
    std::optional<core::Following> following;
    if (round % 2 == 1) following.emplace();
    for (const int threads : {1, 2, 7, 16}) {
      for (const size_t count : {size_t{0}, size_t{1}, size_t{5}, size_t{1000}}) {
        std::vector<std::atomic<int>> done(count), busy(static_cast<size_t>(threads));
        std::atomic<int> shared{0}, outside{0};
        const core::Context context{kernels::kScalar, threads, kNever};
        const core::Status status = core::parallel_for(context, count, [&](size_t i, int slot) {
          if (slot < 0 || slot >= threads) {
            ++outside;
            return;
          }
          if (busy[static_cast<size_t>(slot)].exchange(1) != 0) ++shared;  // two threads with one scratch
          ++done[i];
          busy[static_cast<size_t>(slot)] = 0;
        });
        bool once = true;
        for (const auto& times : done) once = once && times == 1;
        check(status == core::Status::ok && once, text("%d threads, %zu things", threads, count));
        check(shared == 0 && outside == 0, text("%d threads: slots are not their own", threads));
      }
    }
  }
}

void awake() {
  report.begin(text("threads (%s) are told to be awake where they are", core::threading()));
  check(!core::others_are_awake(), "though nothing follows");
  const core::Following following;
  const bool stay = std::string_view(core::threading()) == "threads";
  check(core::others_are_awake() == stay, "though they sleep, or not though they stay awake");
}

template <class Case>
void never_begins(const Options& options) {
  report.begin(text("%s: writes nothing when it was cancelled before", Case::kName));
  const std::atomic<bool> cancel{true};
  Random random(options.seed);
  const Case c = Case::random(random);
  for (const kernels::KernelTable* kernels : options.tables) {
    for (const int threads : {1, 2, 7}) {
      Buffers outputs = c.outputs(0x5a);
      check(c.run({*kernels, threads, cancel}, outputs) == core::Status::cancelled, "does not say so");
      for (const Buffer& output : outputs) check(output.untouched(), output.name());
    }
  }
}

// Shrinks in every iteration: slow.
QuantizeCase slow_case(const Options& options, size_t rows) {
  Random random(options.seed);
  QuantizeCase c;
  c.grid = {rows, 64, rows / 2, format_of(4)};
  c.max_code = 15, c.iterations = 20, c.threshold = 0, c.block = 16;
  std::vector<float> weights(c.grid.weights());
  for (float& weight : weights) weight = random.uniform();
  c.weights = Elements(DType::f32, weights);
  return c;
}

// Whether it was cancelled before it was done.
bool cancelled_in_time(const QuantizeCase& c, int threads) {
  using Clock = std::chrono::steady_clock;
  std::atomic<bool> cancel{false};
  Buffers outputs = c.outputs(0x5a);
  Clock::time_point asked;
  std::thread canceller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    asked = Clock::now();
    cancel = true;
  });
  const core::Status status = c.run({kernels::kScalar, threads, cancel}, outputs);
  const auto ended = Clock::now();
  canceller.join();
  for (const Buffer& output : outputs) check(output.guards_hold(), output.name());
  if (status == core::Status::ok) return false;
  // A unit takes a thread microseconds; under sanitizers and emulators, on processors that others have too, much
  // longer.
  check(ended - asked < std::chrono::seconds(10), text("%d threads: goes on", threads));
  check(outputs[3].untouched(), "sums of what is not done");
  return true;
}

void stops_soon(const Options& options) {
  report.begin("quantize: stops soon when it is cancelled");
  for (const int threads : {1, 2, 7}) {
    bool cancelled = false;
    for (size_t rows = 8192; rows <= 1 << 19 && !cancelled; rows *= 4)
      cancelled = cancelled_in_time(slow_case(options, rows), threads);
    check(cancelled, text("%d threads: always done before it could be cancelled", threads));
  }
}

// One team runs at a time; who comes meanwhile works alone. All get their answer.
void many_callers(const Options& options) {
  report.begin("many callers at once get the same bytes");
  const QuantizeCase c = slow_case(options, options.quick ? 256 : 4096);
  const kernels::KernelTable& kernels = *options.tables.front();
  Buffers want = c.outputs(0xa5);
  c.run({kernels, 1, kNever}, want);
  for (int round = 0; round < options.cases(10, 2); ++round) {
    std::vector<Buffers> got(5);
    std::vector<std::thread> callers;
    for (auto& outputs : got) {
      outputs = c.outputs(0x5a);
      callers.emplace_back([&] { c.run({kernels, 3, kNever}, outputs); });
    }
    for (auto& caller : callers) caller.join();
    for (const auto& outputs : got) expect_same(outputs, want, "a caller");
  }
}

}  // namespace

void test_threads(const Options& options) {
  loops(options);
  awake();
  never_begins<QuantizeCase>(options);
  never_begins<PackCase>(options);
  never_begins<UnpackCase>(options);
  never_begins<DequantizeCase>(options);
  never_begins<ExtremesCase>(options);
  never_begins<DistanceCase>(options);
  never_begins<ConvertCase>(options);
  stops_soon(options);
  many_callers(options);
}

}  // namespace hqq::test
