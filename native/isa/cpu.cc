#include "cpu.h"

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif

namespace hqq::isa {
namespace {

struct Registers {
  uint32_t eax, ebx, ecx, edx;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
#if defined(_MSC_VER) && !defined(__clang__)
  int r[4];
  __cpuidex(r, static_cast<int>(leaf), static_cast<int>(subleaf));
  return {static_cast<uint32_t>(r[0]), static_cast<uint32_t>(r[1]), static_cast<uint32_t>(r[2]),
          static_cast<uint32_t>(r[3])};
#else
  Registers r{};
  __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
  return r;
#endif
}

// Which registers the operating system saves: XCR0. Only to be asked where OSXSAVE is set.
uint64_t saved_state() {
#if defined(_MSC_VER) && !defined(__clang__)
  return _xgetbv(0);
#else
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
#endif
}

constexpr bool has(uint32_t value, uint32_t bits) { return (value & bits) == bits; }
constexpr uint32_t bit(int n) { return 1u << n; }
uint32_t second_of_seven(const Registers& seven) {
  return seven.eax >= 1 ? cpuid(7, 1).eax : 0;
}  // eax: the last subleaf

struct Features {
  bool avx2 = false, avx512 = false, avx512_vnni = false, avx_vnni = false;
  std::vector<std::string_view> names;

  Features() {
    const uint32_t basic = cpuid(1, 0).ecx;
    if (has(basic, bit(20))) names.push_back("sse4_2");
    if (cpuid(0, 0).eax < 7) return;
    constexpr uint32_t kFma = bit(12), kOsxsave = bit(27), kAvx = bit(28), kF16c = bit(29);
    name_those_of_vectors(basic);
    if (!has(basic, kFma | kOsxsave | kAvx | kF16c)) return;
    const uint64_t state = saved_state();
    const Registers seven = cpuid(7, 0);
    const uint32_t extended = seven.ebx;
    constexpr uint64_t kYmm = 0x06, kZmm = 0xe6;
    constexpr uint32_t kAvx2 = bit(5), kF = bit(16), kDq = bit(17), kBw = bit(30), kVl = bit(31);
    avx2 = (state & kYmm) == kYmm && has(extended, kAvx2);
    avx512 = avx2 && (state & kZmm) == kZmm && has(extended, kF | kDq | kBw | kVl);
    avx512_vnni = avx512 && has(seven.ecx, bit(11));
    avx_vnni = avx2 && has(second_of_seven(seven), bit(4));
  }

 private:
  // Each by itself: a processor may lack one of those that make an instruction set here.
  void name_those_of_vectors(uint32_t basic) {
    if (!has(basic, bit(27))) return;
    const uint64_t state = saved_state();
    const Registers seven = cpuid(7, 0);
    const struct {
      const char* name;
      uint32_t value, bits;
      uint64_t saved;
    } rows[] = {
        {"avx", basic, bit(28), 0x06},
        {"f16c", basic, bit(29), 0x06},
        {"fma", basic, bit(12), 0x06},
        {"avx2", seven.ebx, bit(5), 0x06},
        {"avx512f", seven.ebx, bit(16), 0xe6},
        {"avx512dq", seven.ebx, bit(17), 0xe6},
        {"avx512bw", seven.ebx, bit(30), 0xe6},
        {"avx512vl", seven.ebx, bit(31), 0xe6},
        {"avx512_vnni", seven.ecx, bit(11), 0xe6},
        {"avx_vnni", second_of_seven(seven), bit(4), 0x06},
    };
    for (const auto& row : rows)
      if (has(row.value, row.bits) && (state & row.saved) == row.saved) names.push_back(row.name);
  }
};

const Features& cpu() {
  static const Features found;
  return found;
}

}  // namespace

bool has_avx2() { return cpu().avx2; }
bool has_avx512() { return cpu().avx512; }
bool has_avx512_vnni() { return cpu().avx512_vnni; }
bool has_avx_vnni() { return cpu().avx_vnni; }
bool has_neon() { return false; }
bool has_neon_dotprod() { return false; }
bool has_neon_i8mm() { return false; }
std::vector<std::string_view> features() { return cpu().names; }

}  // namespace hqq::isa

#else

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(_WIN32)
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>
#endif

namespace hqq::isa {

bool has_avx2() { return false; }
bool has_avx512() { return false; }
bool has_avx512_vnni() { return false; }
bool has_avx_vnni() { return false; }
bool has_neon_dotprod() {
#if defined(__aarch64__) && defined(__linux__)
  constexpr unsigned long kDotProd = 1ul << 20;  // HWCAP_ASIMDDP
  return (getauxval(AT_HWCAP) & kDotProd) != 0;
#elif defined(__aarch64__) && defined(__APPLE__)
  return true;  // every processor of Apple's that runs macOS
#elif defined(_WIN32)
  return IsProcessorFeaturePresent(43) != 0;  // PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE
#else
  return false;
#endif
}
bool has_neon_i8mm() {
#if defined(__aarch64__) && defined(__linux__)
  constexpr unsigned long kI8mm = 1ul << 13;  // HWCAP2_I8MM
  return has_neon_dotprod() && (getauxval(AT_HWCAP2) & kI8mm) != 0;
#elif defined(__aarch64__) && defined(__APPLE__)
  int value = 0;
  size_t size = sizeof(value);
  return sysctlbyname("hw.optional.arm.FEAT_I8MM", &value, &size, nullptr, 0) == 0 && value != 0;
#elif defined(_WIN32)
  return has_neon_dotprod() && IsProcessorFeaturePresent(66) != 0;  // PF_ARM_V82_I8MM_INSTRUCTIONS_AVAILABLE
#else
  return false;
#endif
}
bool has_neon() {
#if defined(__aarch64__) || defined(_M_ARM64)
  return true;
#else
  return false;
#endif
}
std::vector<std::string_view> features() {
  std::vector<std::string_view> names;
  if (has_neon()) names.push_back("asimd");
  if (has_neon_dotprod()) names.push_back("asimddp");
  if (has_neon_i8mm()) names.push_back("i8mm");
  return names;
}

}  // namespace hqq::isa

#endif
