// Node-API on Windows, without an import library. Windows imports a function from a file of a given name, here
// node.exe; but a program that has Node inside may be called anything (Electron, single executables, a renamed
// node.exe). So each function is a jump through a table, which is filled from the program itself while the addon is
// being loaded.
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>

namespace {

// Made by CMakeLists.txt: HQQ_IMPORT(index, name) for every function of the version that we ask for.
#define HQQ_IMPORT(index, name) #name,
constexpr const char* kNames[] = {
#include "node_api_imports.inc"
};
#undef HQQ_IMPORT
constexpr size_t kCount = sizeof(kNames) / sizeof(kNames[0]);

}  // namespace

extern "C" {
// Named in assembly below. A function that this program lacks stays null: one of a newer Node than the addon asks for.
__attribute__((used)) FARPROC hqq_node_api[kCount];
}

#if defined(__x86_64__)
#define HQQ_JUMP(index) "jmpq *hqq_node_api+8*" #index "(%rip)\n"
#elif defined(__aarch64__)
// x16 is the register that linkers' own stubs use between a call and its target.
#define HQQ_JUMP(index) \
  "adrp x16, hqq_node_api\nadd x16, x16, :lo12:hqq_node_api\nldr x16, [x16, #8*" #index "]\nbr x16\n"
#endif

#define HQQ_IMPORT(index, name) \
  __asm__(".text\n.globl " #name "\n.def " #name "\n.scl 2\n.type 32\n.endef\n.balign 4\n" #name ":\n" HQQ_JUMP(index));
#include "node_api_imports.inc"
#undef HQQ_IMPORT

namespace {

__attribute__((constructor)) void find_node_api() {
  HMODULE program = GetModuleHandleW(nullptr);
  for (size_t i = 0; i < kCount; ++i) hqq_node_api[i] = GetProcAddress(program, kNames[i]);
}

}  // namespace
