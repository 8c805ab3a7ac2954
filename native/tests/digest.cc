#include <cstdio>

#include "cases.h"

// Fixed cases whose outputs have one digest, on every machine and in every language. A line says all that is needed to
// compute it again: native/tests/digests.txt holds these lines, and test/digest.test.ts reads them.
//
// Inputs come from xorshift32, in integers: an element is a sign, an exponent in [low, low + span) and a fraction.
namespace hqq::test {
namespace {

class Stream {
 public:
  explicit Stream(uint32_t seed) : state_(seed) {}
  uint32_t next() {
    state_ ^= state_ << 13, state_ ^= state_ >> 17, state_ ^= state_ << 5;
    return state_;
  }

  // `low`: the biased exponent.
  Elements elements(DType dtype, size_t count, uint32_t low, uint32_t span) {
    constexpr uint32_t kBits[] = {32, 16, 16}, kFraction[] = {23, 10, 7};
    const uint32_t bits = kBits[static_cast<size_t>(dtype)], fraction = kFraction[static_cast<size_t>(dtype)];
    Elements result(dtype, count);
    for (size_t i = 0; i < count; ++i) {
      const uint32_t a = next(), b = next();
      result.set(i, (a >> 31) << (bits - 1) | (low + (a >> 8 & 0xffff) % span) << fraction | b >> (32 - fraction));
    }
    return result;
  }

  Elements magnitudes(size_t count, uint32_t low, uint32_t span) {
    Elements result = elements(DType::f32, count, low, span);
    for (size_t i = 0; i < count; ++i) result.bytes[4 * i + 3] &= std::byte{0x7f};  // without its sign
    return result;
  }

  template <class Byte>
  std::vector<Byte> bytes(size_t count, uint32_t mask) {
    std::vector<Byte> result(count);
    for (Byte& byte : result) byte = static_cast<Byte>(next() >> 24 & mask);
    return result;
  }

 private:
  uint32_t state_;
};

// FNV-1a
uint32_t digest(const Buffer& buffer) {
  uint32_t hash = 0x811c9dc5u;
  for (size_t i = 0; i < buffer.size(); ++i) hash = (hash ^ static_cast<uint32_t>(buffer.data()[i])) * 0x01000193u;
  return hash;
}

template <class Case>
void print(const kernels::KernelTable& kernels, const Case& c, const std::string& inputs) {
  const std::atomic<bool> never{false};
  Buffers outputs = c.outputs(0x5a);
  c.run({kernels, 2, never}, outputs);
  for (Buffer& output : outputs) output.unify_nans();
  std::printf("%s %s %s ->", Case::kName, c.describe().c_str(), inputs.c_str());
  for (const Buffer& output : outputs) std::printf(" %s=%08x", output.name(), digest(output));
  std::printf("\n");
}

Grid grid_of(Format format, size_t rows, size_t cols) {
  const size_t fields = row_of(format).fields;
  return {rows, cols, (rows + fields - 1) / fields, format};
}

// The highest code that a format holds; of two bits three levels, for 1.58.
uint32_t max_code_of(Format format) { return row_of(format).bits == 2 ? 2 : (1u << row_of(format).bits) - 1; }

// Exponents of ordinary weights of each type: magnitudes in [2^-8, 2).
constexpr uint32_t kUnitLow[] = {119, 7, 119}, kUnitSpan = 9;

void quantize(const kernels::KernelTable& kernels, QuantizeCase c, uint32_t seed, uint32_t low, uint32_t span,
              size_t features = 0) {
  Stream stream(seed);
  c.weights = stream.elements(c.weights.dtype, c.grid.weights(), low, span);
  if (features > 0) {
    c.importance = stream.magnitudes(features, low, span);
    for (size_t g = 0; g < c.grid.groups(c.axis); ++g) c.starts.push_back(static_cast<int32_t>(7 * g % features));
  }
  print(kernels, c, text("seed=%u low=%u span=%u", seed, low, span));
}

void quantize_all(const kernels::KernelTable& kernels) {
  uint32_t seed = 1;
  for (size_t f = 0; f < kFormatCount; ++f) {
    for (const int axis : {0, 1}) {
      for (size_t type = 0; type < kDTypes; ++type) {
        QuantizeCase c;
        c.grid = axis == 1 ? grid_of(kAllFormats[f], 45, 40) : grid_of(kAllFormats[f], 40, 45);
        c.axis = axis, c.max_code = max_code_of(kAllFormats[f]), c.block = 3;
        c.weights.dtype = static_cast<DType>(type);
        c.meta_dtype = static_cast<DType>((type + f) % kDTypes);
        // Thresholds below all that 1 / beta^(1 / (2 - p)) can be; no power, whose last bit is a library's own.
        c.iterations = 20, c.beta = 10, c.lp_norm = 0.7, c.threshold = 0.125;
        quantize(kernels, c, seed++, kUnitLow[type], kUnitSpan);
        c.kappa = 1.01, c.lp_norm = 0.5, c.threshold = 0, c.reference_guards = true;
        quantize(kernels, c, seed++, kUnitLow[type], kUnitSpan);
        c.kappa = 1, c.lp_norm = 1, c.threshold = 0.0625, c.round_zero = true, c.reference_guards = false;
        quantize(kernels, c, seed++, kUnitLow[type], kUnitSpan);
        c.iterations = 0, c.round_zero = false;
        quantize(kernels, c, seed++, 0, 1);                     // subnormal, and zero
        quantize(kernels, c, seed++, 0, type == 1 ? 31 : 255);  // all finite numbers
      }
    }
  }
  for (const size_t size : {size_t{32}, size_t{64}, size_t{128}, size_t{2048}}) {
    QuantizeCase c;
    c.grid = grid_of(format_of(4), 20, size);
    c.max_code = 15, c.iterations = 20, c.threshold = 0.125, c.block = 16, c.weights.dtype = DType::f32;
    quantize(kernels, c, seed++, 110, 17);
    c.weights.dtype = DType::bf16;
    quantize(kernels, c, seed++, 110, 17);
  }
}

// With importance: without shrinkage, and with it in every iteration.
void weigh_all(const kernels::KernelTable& kernels) {
  uint32_t seed = 5001;
  for (const Format format : kAllFormats) {
    for (const int axis : {0, 1}) {
      QuantizeCase c;
      c.grid = axis == 1 ? grid_of(format, 45, 40) : grid_of(format, 40, 45);
      c.axis = axis, c.max_code = max_code_of(format), c.block = 3, c.stride = axis == 1 ? 1 : 11;
      c.weights.dtype = DType::f32;
      c.iterations = 20, c.beta = 10, c.lp_norm = 0.7, c.threshold = 0.125;
      quantize(kernels, c, seed++, 110, 17, 37);
      c.kappa = 1.01, c.lp_norm = 0.5, c.threshold = 0, c.meta_dtype = DType::bf16;
      quantize(kernels, c, seed++, 110, 17, 37);
    }
  }
}

// Of solvers that fit scale and zero together, and of kl: beside others, alone, with zeros of each kind.
void fit_all(const kernels::KernelTable& kernels) {
  uint32_t seed = 6001;
  for (const char* solver : {"joint", "hqs", "admm", "kl"}) {
    for (const auto zero : {kernels::ZeroKind::real, kernels::ZeroKind::integer, kernels::ZeroKind::symmetric}) {
      for (const size_t size : {size_t{40}, size_t{64}, size_t{300}}) {
        for (const int bits : {2, 4, 8}) {
          QuantizeCase c;
          c.grid = grid_of(format_of(bits), 20, size);
          c.axis = 1, c.max_code = max_code_of(format_of(bits)), c.block = 16;
          c.solver = solver, c.fixed_zero = zero, c.lp_norm = 2, c.iterations = 20, c.beta = 10;
          c.weights.dtype = bits == 4 ? DType::bf16 : DType::f32;
          quantize(kernels, c, seed++, 110, 17, size == 64 ? 37 : 0);
        }
      }
    }
  }
}

void pack_all(const kernels::KernelTable& kernels) {
  uint32_t seed = 1001;
  for (const Format format : kAllFormats) {
    for (const size_t cols : {size_t{17}, size_t{200}}) {
      PackCase pack{grid_of(format, 37, cols), {}};
      pack.codes = Stream(seed).bytes<uint8_t>(pack.grid.weights(), pack.grid.mask());
      print(kernels, pack, text("seed=%u", seed));
      ++seed;
      UnpackCase unpack{pack.grid, {}};
      unpack.packed = Stream(seed).bytes<std::byte>(unpack.grid.words() * size_of(unpack.grid.word()), 255);
      print(kernels, unpack, text("seed=%u", seed));
      ++seed;
    }
  }
}

void dequantize_all(const kernels::KernelTable& kernels) {
  uint32_t seed = 2001;
  for (const Format format : kAllFormats) {
    for (const int axis : {0, 1}) {
      for (size_t type = 0; type < kDTypes; ++type) {
        for (const bool each : {false, true}) {
          DequantizeCase c;
          c.grid = grid_of(format, 37, 43);
          c.axis = axis, c.dtype = static_cast<DType>(type), c.round_each = each;
          Stream stream(seed);
          c.packed = stream.bytes<std::byte>(c.grid.words() * size_of(c.grid.word()), 255);
          c.scale = stream.elements(DType::f32, c.grid.groups(axis), 110, 17);
          c.zero = stream.elements(DType::f32, c.grid.groups(axis), 120, 12);
          print(kernels, c, text("seed=%u", seed));
          ++seed;
        }
      }
    }
  }
}

void distance_all(const kernels::KernelTable& kernels) {
  uint32_t seed = 3001;
  for (size_t a = 0; a < kDTypes; ++a) {
    for (size_t b = 0; b < kDTypes; ++b) {
      const size_t count = a == b ? 40001 : 777;
      Stream stream(seed);
      DistanceCase c;
      c.a = stream.elements(static_cast<DType>(a), count, kUnitLow[a], kUnitSpan);
      c.b = stream.elements(static_cast<DType>(b), count, kUnitLow[b], kUnitSpan);
      print(kernels, c, text("seed=%u low=%u,%u span=%u", seed, kUnitLow[a], kUnitLow[b], kUnitSpan));
      ++seed;
    }
  }
}

void convert_all(const kernels::KernelTable& kernels) {
  uint32_t seed = 4001;
  for (size_t from = 0; from < kDTypes; ++from) {
    for (size_t to = 0; to < kDTypes; ++to) {
      ConvertCase c;
      c.from = Stream(seed).elements(static_cast<DType>(from), from == to ? 777 : 70001, kUnitLow[from], kUnitSpan);
      c.dtype = static_cast<DType>(to);
      print(kernels, c, text("seed=%u low=%u span=%u", seed, kUnitLow[from], kUnitSpan));
      ++seed;
    }
  }
}

}  // namespace

void print_digests(const kernels::KernelTable& kernels) {
  quantize_all(kernels);
  pack_all(kernels);
  dequantize_all(kernels);
  distance_all(kernels);
  convert_all(kernels);
  weigh_all(kernels);
  fit_all(kernels);
}

}  // namespace hqq::test
