#pragma once
#include <span>
#include <string_view>

#include "../kernels/table.h"

namespace hqq::isa {

struct Isa {
  const kernels::KernelTable* table;
  bool (*supported)();
};

// Instruction sets that were compiled in, best first; the last one runs everywhere.
std::span<const Isa> compiled();

// The kernels of the instruction set called `name`; nullptr where it is not compiled in or cannot run here.
const kernels::KernelTable* find(std::string_view name);

}  // namespace hqq::isa
