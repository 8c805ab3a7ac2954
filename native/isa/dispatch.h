#pragma once
#include <span>
#include <string_view>

#include "../kernels/table.h"

namespace hqq::isa {

struct Isa {
  const kernels::KernelTable* table;
  bool (*supported)();
};

// Integer products of an instruction set: of an extension, or its own.
struct Products {
  std::string_view isa;
  const kernels::ByteProducts* bytes;
  bool (*supported)();
};

// Instruction sets that were compiled in, best first; the last one runs everywhere. A table holds the best products
// that the machine can run.
std::span<const Isa> compiled();

// All products that were compiled in, each instruction set's best first. They give the same bits.
std::span<const Products> products();

// The kernels of the instruction set called `name`; nullptr where it is not compiled in or cannot run here.
const kernels::KernelTable* find(std::string_view name);

}  // namespace hqq::isa
