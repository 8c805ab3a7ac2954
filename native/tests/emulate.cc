#include "emulate.h"

#include "../isa/cpu.h"

#if defined(__x86_64__) && defined(__linux__)
#include <signal.h>
#include <ucontext.h>

#include <cstdint>
#include <cstring>

namespace hqq::test {
namespace {

struct sigaction before;

template <class T>
T read(const void* p) {
  T value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

// The registers that a signal interrupted. Lower halves of ymm registers lie in the part that FXSAVE wrote, upper
// halves in the part that XSAVE added; a part that is all zeros may not have been written, which the header says.
class Registers {
 public:
  explicit Registers(void* context) : context_(*static_cast<ucontext_t*>(context)) {}

  bool has_ymm() const {
    constexpr uint32_t kMagic = 0x46505853;
    const auto* area = fp();
    if (area == nullptr || read<uint32_t>(area + kSoftware) != kMagic) return false;
    return (read<uint64_t>(area + kSoftware + 8) & kYmm) != 0;
  }
  void load_ymm(unsigned n, void* to) const {
    const auto in_use = read<uint64_t>(fp() + kHeader);
    std::memset(to, 0, 32);
    if (in_use & kXmm) std::memcpy(to, fp() + kXmmAt + 16 * n, 16);
    if (in_use & kYmm) std::memcpy(static_cast<uint8_t*>(to) + 16, fp() + kYmmAt + 16 * n, 16);
  }
  void store_ymm(unsigned n, const void* from) {
    const auto in_use = read<uint64_t>(fp() + kHeader);
    if (!(in_use & kXmm)) std::memset(fp() + kXmmAt, 0, 16 * 16);
    if (!(in_use & kYmm)) std::memset(fp() + kYmmAt, 0, 16 * 16);
    const uint64_t all = in_use | kXmm | kYmm;
    std::memcpy(fp() + kHeader, &all, sizeof(all));
    std::memcpy(fp() + kXmmAt + 16 * n, from, 16);
    std::memcpy(fp() + kYmmAt + 16 * n, static_cast<const uint8_t*>(from) + 16, 16);
  }
  int64_t general(unsigned n) const {
    constexpr int kOrder[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                              REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    return context_.uc_mcontext.gregs[kOrder[n]];
  }
  const uint8_t* at() const { return reinterpret_cast<const uint8_t*>(context_.uc_mcontext.gregs[REG_RIP]); }
  void go_to(const uint8_t* at) { context_.uc_mcontext.gregs[REG_RIP] = reinterpret_cast<greg_t>(at); }

 private:
  static constexpr size_t kXmmAt = 160, kSoftware = 464, kHeader = 512, kYmmAt = 576;
  static constexpr uint64_t kXmm = 2, kYmm = 4;
  uint8_t* fp() const { return reinterpret_cast<uint8_t*>(context_.uc_mcontext.fpregs); }

  ucontext_t& context_;
};

// The address that an instruction's ModRM byte at `p` names; `p` becomes what follows.
const void* address(const Registers& registers, const uint8_t*& p, unsigned mode, unsigned base, unsigned high_index,
                    unsigned high_base) {
  int64_t sum = 0;
  const bool relative = mode == 0 && base == 5;
  bool wide = mode == 2 || relative;
  if (base == 4) {
    const unsigned scale = *p >> 6, index = (*p >> 3 & 7) | high_index;
    base = *p++ & 7;
    if (index != 4) sum += registers.general(index) * (1 << scale);
    if (mode == 0 && base == 5)
      wide = true;
    else
      sum += registers.general(base | high_base);
  } else if (!relative) {
    sum += registers.general(base | high_base);
  }
  if (wide)
    sum += read<int32_t>(p), p += 4;
  else if (mode == 1)
    sum += static_cast<int8_t>(*p++);
  if (relative) sum += reinterpret_cast<int64_t>(p);  // nothing follows the displacement
  return reinterpret_cast<const void*>(sum);
}

// vpdpbusd ymm, ymm, ymm/m256 = VEX.256.66.0F38.W0 50 /r: each 32-bit lane of the first += the sum of four products of
// bytes, without sign in the second and with sign in the third. False for anything else.
bool emulate(Registers& registers) {
  const uint8_t* p = registers.at();
  if (p[0] != 0xc4 || (p[1] & 0x1f) != 2 || (p[2] & 0x87) != 0x05 || p[3] != 0x50 || !registers.has_ymm()) return false;
  const unsigned high_reg = p[1] & 0x80 ? 0 : 8, high_index = p[1] & 0x40 ? 0 : 8, high_base = p[1] & 0x20 ? 0 : 8;
  const unsigned second = ~p[2] >> 3 & 15, mode = p[4] >> 6, first = (p[4] >> 3 & 7) | high_reg, third = p[4] & 7;
  p += 5;
  uint32_t sum[8];
  uint8_t codes[32];
  int8_t x[32];
  registers.load_ymm(first, sum);
  registers.load_ymm(second, codes);
  if (mode == 3)
    registers.load_ymm(third | high_base, x);
  else
    std::memcpy(x, address(registers, p, mode, third, high_index, high_base), sizeof(x));
  for (int i = 0; i < 32; ++i) sum[i / 4] += codes[i] * x[i];
  registers.store_ymm(first, sum);
  registers.go_to(p);
  return true;
}

// What is not known comes again without a handler, and ends the program.
void on_illegal_instruction(int, siginfo_t*, void* context) {
  Registers registers(context);
  if (!emulate(registers)) signal(SIGILL, SIG_DFL);
}

bool seen = false;
void look(int, siginfo_t*, void* context) { seen = Registers(context).has_ymm(); }

void handle(int signal, void (*handler)(int, siginfo_t*, void*), struct sigaction* old) {
  struct sigaction action = {};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO;
  sigaction(signal, &action, old);
}

}  // namespace

VnniEmulation::VnniEmulation() { handle(SIGILL, on_illegal_instruction, &before); }
VnniEmulation::~VnniEmulation() { sigaction(SIGILL, &before, nullptr); }

bool VnniEmulation::possible() {
  if (!isa::has_avx2()) return false;
  struct sigaction old;
  handle(SIGUSR1, look, &old);
  raise(SIGUSR1);
  sigaction(SIGUSR1, &old, nullptr);
  return seen;
}

}  // namespace hqq::test

#else

namespace hqq::test {

VnniEmulation::VnniEmulation() {}
VnniEmulation::~VnniEmulation() {}
bool VnniEmulation::possible() { return false; }

}  // namespace hqq::test

#endif
