// Memory of the addon's own on macOS. The runtime that Zig links in exports its operators new and delete, which the
// system would then mix with those of other libraries in the process. These take their place under the same (mangled)
// names, hidden.
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

void* allocate(size_t bytes) {
  void* const memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void* allocate(size_t bytes, size_t alignment) {
  void* memory = nullptr;
  const size_t least = alignment < sizeof(void*) ? sizeof(void*) : alignment;
  if (posix_memalign(&memory, least, bytes == 0 ? 1 : bytes) != 0) throw std::bad_alloc();
  return memory;
}

}  // namespace

#define HQQ_HIDDEN extern "C" __attribute__((visibility("hidden"), used))

HQQ_HIDDEN void* _Znwm(size_t bytes) { return allocate(bytes); }
HQQ_HIDDEN void* _Znam(size_t bytes) { return allocate(bytes); }
HQQ_HIDDEN void* _ZnwmSt11align_val_t(size_t bytes, size_t alignment) { return allocate(bytes, alignment); }
HQQ_HIDDEN void* _ZnamSt11align_val_t(size_t bytes, size_t alignment) { return allocate(bytes, alignment); }
HQQ_HIDDEN void _ZdlPv(void* memory) { std::free(memory); }
HQQ_HIDDEN void _ZdaPv(void* memory) { std::free(memory); }
HQQ_HIDDEN void _ZdlPvm(void* memory, size_t) { std::free(memory); }
HQQ_HIDDEN void _ZdaPvm(void* memory, size_t) { std::free(memory); }
HQQ_HIDDEN void _ZdlPvSt11align_val_t(void* memory, size_t) { std::free(memory); }
HQQ_HIDDEN void _ZdaPvSt11align_val_t(void* memory, size_t) { std::free(memory); }
HQQ_HIDDEN void _ZdlPvmSt11align_val_t(void* memory, size_t, size_t) { std::free(memory); }
HQQ_HIDDEN void _ZdaPvmSt11align_val_t(void* memory, size_t, size_t) { std::free(memory); }
