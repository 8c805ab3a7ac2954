#include <cmath>
#include <cstring>
#include <limits>

#include "../simd/math.h"
#include "../simd/scalar.h"
#include "cases.h"

// Kernels that have an answer of their own: conversions, transposes, packing, powers.
namespace hqq::test {
namespace {

struct HalfType {
  const char* name;
  DType dtype;
  int fraction_bits, bias;
  uint16_t infinity;

  // By arithmetic. The pattern of infinity stands for the power of two that would come next.
  double value(uint16_t bits) const {
    const int magnitude = bits & 0x7fff, exponent = magnitude >> fraction_bits;
    const double fraction = std::ldexp(magnitude & ((1 << fraction_bits) - 1), -fraction_bits);
    const double size = exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias);
    return bits & 0x8000 ? -size : size;
  }
};

constexpr HalfType kHalfTypes[] = {{"float16", DType::f16, 10, 15, 0x7c00}, {"bfloat16", DType::bf16, 7, 127, 0x7f80}};

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

void widen_all(const kernels::KernelTable& kernels, const HalfType& type) {
  report.begin(text("%s: widens every %s", kernels.isa, type.name));
  std::vector<uint16_t> patterns(65536);
  for (size_t i = 0; i < patterns.size(); ++i) patterns[i] = static_cast<uint16_t>(i);
  std::vector<float> wide(patterns.size());
  kernels.widen[static_cast<size_t>(type.dtype)](patterns.data(), patterns.size(), wide.data());
  for (const uint16_t h : patterns) {
    const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
    uint32_t want;
    if ((h & 0x7fff) < type.infinity)
      want = bits_of(static_cast<float>(type.value(h)));
    else if (type.dtype == DType::bf16)
      want = static_cast<uint32_t>(h) << 16;
    else
      want = sign | 0x7f800000u | (h & 0x3ffu) << 13 | (h & 0x3ffu ? 1u << 22 : 0);  // NaNs become quiet
    if (bits_of(wide[h]) != want) fail(text("%04x becomes %08x, not %08x", h, bits_of(wide[h]), want));
  }
}

// Every value of the type, the middle to the next one, and the floats on both sides of that.
void narrow_ties(const kernels::KernelTable& kernels, const HalfType& type) {
  report.begin(text("%s: rounds to %s, half to even", kernels.isa, type.name));
  std::vector<float> from;
  std::vector<uint16_t> want;
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto h = static_cast<uint16_t>(i), next = static_cast<uint16_t>(i + 1);
    if ((h & 0x7fff) >= type.infinity) continue;
    const auto value = static_cast<float>(type.value(h));
    const auto middle = static_cast<float>((type.value(h) + type.value(next)) / 2);
    const float infinity = std::numeric_limits<float>::infinity();
    const float below = std::nextafter(middle, 0.0f), above = std::nextafter(middle, std::copysign(infinity, middle));
    for (const float x : {value, middle, below, above}) from.push_back(x);
    for (const uint16_t bits : {h, h & 1 ? next : h, h, next}) want.push_back(bits);
  }
  std::vector<uint16_t> narrow(from.size());
  kernels.narrow[static_cast<size_t>(type.dtype)](from.data(), from.size(), narrow.data());
  for (size_t i = 0; i < from.size(); ++i)
    if (narrow[i] != want[i])
      fail(text("%.9g becomes %04x, not %04x", static_cast<double>(from[i]), narrow[i], want[i]));
}

void narrow_random(const Options& options, const kernels::KernelTable& kernels, DType dtype) {
  report.begin(
      text("%s: rounds any float to type %d as %s does", kernels.isa, static_cast<int>(dtype), options.reference->isa));
  Random random(options.seed);
  std::vector<float> from(static_cast<size_t>(options.cases(1 << 20, 1 << 16)));
  for (float& x : from) {
    const auto bits = static_cast<uint32_t>(random.next());  // infinities and NaNs among them
    std::memcpy(&x, &bits, sizeof(x));
  }
  Buffers got{{"narrowed", element_of(dtype), from.size(), 0x5a}};
  Buffers want{{"narrowed", element_of(dtype), from.size(), 0xa5}};
  kernels.narrow[static_cast<size_t>(dtype)](from.data(), from.size(), got[0].at());
  options.reference->narrow[static_cast<size_t>(dtype)](from.data(), from.size(), want[0].at());
  expect_same(got, want, kernels.isa);
}

void convert_tails(const kernels::KernelTable& kernels) {
  report.begin(text("%s: converts any number of elements", kernels.isa));
  for (size_t count = 1; count < 50; ++count) {
    const std::vector<float> ones(count, 1.5f);
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      const auto type = static_cast<size_t>(dtype);
      Buffers got{{"narrowed", element_of(dtype), count, 0x5a}, {"widened", Element::f32, count, 0x5a}};
      kernels.narrow[type](ones.data(), count, got[0].at());
      kernels.widen[type](got[0].at(), count, got[1].at<float>());
      Buffers want{{"narrowed", element_of(dtype), count, 0xa5}, {"widened", Element::f32, count, 0xa5}};
      std::memcpy(want[0].at(), Elements(dtype, ones).bytes.data(), want[0].size());
      std::memcpy(want[1].at(), ones.data(), want[1].size());
      expect_same(got, want, text("%s, %zu elements of type %zu", kernels.isa, count, type));
    }
  }
}

template <class T, class Kernel>
void transpose_random(const Options& options, const char* isa, Kernel kernel) {
  report.begin(text("%s: transposes %zu-byte elements", isa, sizeof(T)));
  Random random(options.seed);
  const Element element = sizeof(T) == 1 ? Element::bytes : Element::words;
  for (int i = 0; i < options.cases(200, 50); ++i) {
    const size_t rows = random.pick(kOddSizes), cols = random.pick(kOddSizes);
    const size_t from_stride = cols + random.below(5), to_stride = rows + random.below(5);
    std::vector<T> from((rows - 1) * from_stride + cols);
    for (T& x : from) x = static_cast<T>(random.next());
    Buffers got{{"transposed", element, cols * to_stride, 0x5a}}, want{{"transposed", element, cols * to_stride, 0x5a}};
    kernel(from.data(), rows, cols, from_stride, got[0].template at<T>(), to_stride);
    for (size_t r = 0; r < rows; ++r)
      for (size_t c = 0; c < cols; ++c) want[0].template at<T>()[c * to_stride + r] = from[r * from_stride + c];
    expect_same(got, want, text("%s, %zu x %zu", isa, rows, cols));
  }
}

void turn_random(const Options& options, const kernels::KernelTable& kernels) {
  report.begin(text("%s: turns columns of a matrix", kernels.isa));
  Random random(options.seed);
  const std::atomic<bool> never{false};
  for (int i = 0; i < options.cases(200, 50); ++i) {
    const DType dtype = random.pick(kAllDTypes);
    const size_t size = bytes_of(dtype), rows = random.pick(kOddSizes), first = random.below(5);
    const size_t cols = random.chance(10) ? 1024 + random.below(3) : random.pick(kOddSizes);
    const size_t stride = first + cols + random.below(5);
    std::vector<uint8_t> from(rows * stride * size);
    for (uint8_t& x : from) x = static_cast<uint8_t>(random.next());
    Buffers got{{"turned", element_of(dtype), rows * cols, 0x5a}},
        want{{"turned", element_of(dtype), rows * cols, 0xa5}};
    core::turn({kernels, 2, never}, {.from = from.data(),
                                     .dtype = dtype,
                                     .rows = rows,
                                     .stride = stride,
                                     .first = first,
                                     .cols = cols,
                                     .to = got[0].at()});
    for (size_t r = 0; r < rows; ++r)
      for (size_t c = 0; c < cols; ++c)
        std::memcpy(want[0].at<uint8_t>() + (c * rows + r) * size, &from[(r * stride + first + c) * size], size);
    expect_same(got, want, text("%s, %zu x %zu of %zu", kernels.isa, rows, cols, stride));
  }
}

// Rows of bits one after the other; or a code of each of eight rows in a word.
void pack_words_random(const Options& options, const kernels::KernelTable& kernels) {
  report.begin(text("%s: packs codes in words", kernels.isa));
  Random random(options.seed);
  const std::atomic<bool> never{false};
  for (int i = 0; i < options.cases(300, 80); ++i) {
    core::PackWords op{};
    op.across = random.chance(40), op.turned = random.chance(50);
    op.bits = op.across ? 4 : static_cast<unsigned>(1 + random.below(8));
    op.rows = random.pick(kOddSizes) * (op.across ? 8 : 1);
    op.cols = random.chance(15) ? 800 + random.below(600) : random.pick(kOddSizes);
    for (uint8_t& row : op.order) row = static_cast<uint8_t>(random.below(8));
    std::vector<uint8_t> codes(op.rows * op.cols);
    for (uint8_t& code : codes) code = static_cast<uint8_t>(random.next());  // what of them is no code is dropped
    op.codes = codes.data();
    const size_t lines = op.lines(), width = op.width(), height = op.turned ? width : lines;
    op.step = (op.turned ? lines : width) + random.below(5);
    Buffers got{{"words", Element::words, height * op.step, 0x5a}};
    Buffers want{{"words", Element::words, height * op.step, 0x5a}};
    op.words = got[0].at<int32_t>();
    constexpr int kThreads[] = {1, 2, 7};
    const int threads = random.pick(kThreads);
    core::pack_words({kernels, threads, never}, op);
    for (size_t line = 0; line < lines; ++line)
      for (size_t w = 0; w < width; ++w) {
        uint32_t word = 0;
        for (size_t bit = 0; bit < 32; ++bit) {
          const size_t at = op.across ? bit / 4 : (w * 32 + bit) / op.bits;
          const size_t row = op.across ? line * 8 + op.order[at] : line, col = op.across ? w : at;
          const size_t of_code = op.across ? bit % 4 : (w * 32 + bit) % op.bits;
          if (col < op.cols) word |= (codes[row * op.cols + col] >> of_code & 1u) << bit;
        }
        want[0].at<uint32_t>()[op.turned ? w * op.step + line : line * op.step + w] = word;
      }
    expect_same(got, want,
                text("%s, %zu x %zu of %u bits%s%s, %d threads", kernels.isa, op.rows, op.cols, op.bits,
                     op.across ? ", across" : "", op.turned ? ", turned" : "", threads));
  }
}

}  // namespace

void test_conversions(const Options& options) {
  for (const kernels::KernelTable* kernels : options.tables) {
    for (const HalfType& type : kHalfTypes) {
      widen_all(*kernels, type);
      if (options.real_machine()) narrow_ties(*kernels, type);
      narrow_random(options, *kernels, type.dtype);
    }
    convert_tails(*kernels);
  }
}

void test_transposes(const Options& options) {
  for (const kernels::KernelTable* kernels : options.tables) {
    transpose_random<uint8_t>(options, kernels->isa, kernels->transpose_u8);
    transpose_random<uint32_t>(options, kernels->isa, kernels->transpose_u32);
    turn_random(options, *kernels);
    pack_words_random(options, *kernels);
  }
}

// word = sum of code << shift; and back.
void test_packing(const Options& options) {
  report.begin("scalar: packs as the formula says");
  const std::atomic<bool> never{false};
  for (int i = 0; i < options.cases(300, 60); ++i) {
    Random random(options.seed * 31 + static_cast<uint64_t>(i));
    const PackCase c = PackCase::random(random);
    const Grid& grid = c.grid;
    const size_t word_bytes = row_of(grid.format).word_bytes, fields = row_of(grid.format).fields;
    const size_t bits = word_bytes * 8 / fields;
    Buffers got = c.outputs(0x5a), want = c.outputs(0xa5);
    c.run({kernels::kScalar, 1, never}, got);
    for (size_t at = 0; at < grid.words(); ++at) {
      uint32_t word = 0;
      for (size_t f = 0; f < fields; ++f)
        if (const size_t code = at + f * grid.words(); code < c.codes.size())
          word |= static_cast<uint32_t>(c.codes[code]) << (fields - 1 - f) * bits;
      for (size_t b = 0; b < word_bytes; ++b)
        want[0].at<uint8_t>()[at * word_bytes + b] = static_cast<uint8_t>(word >> 8 * b);
    }
    expect_same(got, want, c.describe());
    UnpackCase back{grid, {got[0].data(), got[0].data() + got[0].size()}};
    Buffers codes = back.outputs(0x5a);
    back.run({kernels::kScalar, 1, never}, codes);
    check(std::memcmp(codes[0].data(), c.codes.data(), c.codes.size()) == 0, "does not unpack: " + c.describe());
  }
}

}  // namespace hqq::test
