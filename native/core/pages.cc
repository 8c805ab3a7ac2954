#include "pages.h"

#include "operations.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdint>

namespace hqq::core {

namespace {
constexpr uintptr_t kPage = uintptr_t{1} << 21;
}  // namespace

void prefer_large_pages([[maybe_unused]] void* begin, [[maybe_unused]] size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t first = (address + kPage - 1) & ~(kPage - 1), last = (address + bytes) & ~(kPage - 1);
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

Status large_pages(const Context&, const LargePages& op) {
  prefer_large_pages(op.array, op.count * sizeof(float));
  *op.to_page = static_cast<int32_t>((kPage - reinterpret_cast<uintptr_t>(op.array) % kPage) % kPage);
  return Status::ok;
}

Status trim(const Context&, const Trim&) {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
  return Status::ok;
}

}  // namespace hqq::core
