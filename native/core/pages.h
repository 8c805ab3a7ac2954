#pragma once
#include <cstddef>

namespace hqq::core {

// Tells the system that large pages would serve the memory at [begin, begin + bytes). Fresh output arrays are untouched
// memory: in small pages, the faults of writing them for the first time cost more than the operation. A hint: nothing
// depends on it.
void prefer_large_pages(void* begin, size_t bytes);

}  // namespace hqq::core
