#include "cases.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../kernels/table.h"

namespace hqq::test {
namespace {

constexpr DType kAllDTypes[] = {DType::f32, DType::f16, DType::bf16};

std::vector<std::byte> random_bytes(Random& random, size_t count) {
  std::vector<std::byte> bytes(count);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random.next());
  return bytes;
}

float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace

Elements::Elements(DType type, const std::vector<float>& values) : Elements(type, values.size()) {
  kernels::kScalar.narrow[static_cast<size_t>(type)](values.data(), count, bytes.data());
}

void Elements::set(size_t index, uint32_t bits) {
  if (dtype == DType::f32) std::memcpy(bytes.data() + index * 4, &bits, 4);
  const auto half = static_cast<uint16_t>(bits);
  if (dtype != DType::f32) std::memcpy(bytes.data() + index * 2, &half, 2);
}

std::vector<float> random_weights(Random& random, size_t count, DType dtype) {
  std::vector<float> values(count);
  const auto fill = [&](auto make) { std::generate(values.begin(), values.end(), make); };
  const float scale = std::ldexp(1.0f, static_cast<int>(random.below(9)) - 6);
  switch (random.below(11)) {
    case 0: fill([&] { return random.normal() * 0.02f; }); break;
    case 1: fill([&] { return random.normal() * 1e-8f; }); break;
    case 2: fill([&] { return random.normal() * 1e37f; }); break;
    case 3: fill([&] { return random.uniform() * 3e38f; }); break;  // its range overflows
    case 4: fill([&] { return float_of(static_cast<uint32_t>(random.next()) & 0x807fffffu); }); break;  // subnormal
    case 5: fill([&] { return float_of(static_cast<uint32_t>(random.next()) & 0xbfffffffu); }); break;  // below 2
    case 6: {
      const float constant = random.normal();
      fill([&] { return constant; });
      break;
    }
    case 7: fill([&] { return random.chance(50) ? -0.0f : 0.0f; }); break;
    case 8: fill([&] { return static_cast<float>(static_cast<int>(random.below(33)) - 16) * 0.25f; }); break;  // ties
    case 9: fill([&] { return random.normal() * (random.chance(3) ? 30.0f : 0.02f); }); break;
    default: fill([&] { return random.normal() * scale; }); break;  // where shrinkage has something to leave
  }
  if (dtype == DType::f16)
    for (float& value : values) value = std::clamp(value, -65504.0f, 65504.0f);
  return values;
}

Grid Grid::random(Random& random) {
  Grid grid;
  grid.rows = random.pick(kOddSizes);
  grid.cols = random.pick(kOddSizes);
  grid.format = random.pick(kAllFormats);
  const size_t fields = row_of(grid.format).fields;
  grid.step = (grid.rows + fields - 1) / fields;
  if (random.chance(20)) grid.step += random.below(4);  // a caller's chunk may be short
  return grid;
}

std::string Grid::describe() const {
  return text("format=%d rows=%zu cols=%zu step=%zu", static_cast<int>(format), rows, cols, step);
}

// ---- quantize

QuantizeCase QuantizeCase::random(Random& random) {
  constexpr int kIterations[] = {0, 1, 2, 5, 20, 20};
  constexpr double kBetas[] = {1, 10, 100}, kKappas[] = {1, 1.01}, kNorms[] = {1, 0.7, 0.5};
  constexpr kernels::ZeroKind kZeros[] = {kernels::ZeroKind::real, kernels::ZeroKind::integer,
                                          kernels::ZeroKind::symmetric};
  constexpr const char* kSolvers[] = {"joint", "joint", "hqs", "admm", "kl"};
  QuantizeCase c;
  c.grid = Grid::random(random);
  c.axis = static_cast<int>(random.below(2));
  c.weights = Elements(random.pick(kAllDTypes), 0);
  c.weights = Elements(c.weights.dtype, random_weights(random, c.grid.weights(), c.weights.dtype));
  const auto bits = 1 + random.below(static_cast<size_t>(row_of(c.grid.format).bits));
  c.max_code = bits == 2 && random.chance(50) ? 2 : (1u << bits) - 1;  // three levels, too
  c.iterations = random.pick(kIterations);
  c.beta = random.pick(kBetas);
  c.kappa = random.pick(kKappas);
  c.threshold = random.chance(25) ? 0 : -1;
  c.lp_norm = random.pick(kNorms);
  c.round_zero = random.chance(30);
  c.reference_guards = random.chance(30);
  c.block = 1 + random.below(kernels::kMaxBlock);
  c.meta_dtype = random.pick(kAllDTypes);
  if (random.chance(30)) c.scale_dtype = random.pick(kAllDTypes);
  if (random.chance(40)) {
    c.solver = random.pick(kSolvers);
    c.iterations = c.iterations > 0 ? c.iterations : 3;
    c.fixed_zero = random.pick(kZeros);
    if (random.chance(70)) c.lp_norm = 2;
  }
  if (random.chance(40)) {
    const size_t features = random.pick(kOddSizes);
    std::vector<float> values = random_weights(random, features, DType::f32);
    for (float& value : values) value = std::fabs(value);
    c.importance = Elements(DType::f32, values);
    c.stride = 1 + random.below(2 * features);
    for (size_t g = 0; g < c.grid.groups(c.axis); ++g) c.starts.push_back(static_cast<int32_t>(random.below(features)));
  }
  if (random.chance(20)) {
    constexpr float kScales[] = {0, 0x1p-130f, 0x1p-126f, 1e-9f, 0.001f, 0.02f, 1, -0.02f, -1, 0x1p100f};
    const auto top = static_cast<float>(c.max_code);
    for (size_t g = 0; g < c.grid.groups(c.axis); ++g) {
      c.scales.push_back(random.pick(kScales));
      c.zeros.push_back(top * (static_cast<float>(random.below(301)) / 100.0f - 1.0f));
    }
  }
  return c;
}

Buffers QuantizeCase::outputs(uint8_t fill) const {
  const size_t groups = scales.empty() ? grid.groups(axis) : 0;
  return {{"packed", grid.word(), grid.words(), fill},
          {"scale", Element::f32, groups, fill},
          {"zero", Element::f32, groups, fill},
          {"stats", Element::f64, 5, fill}};
}

std::vector<float> hqq_parameters(double lp_norm, double beta, double kappa, double threshold, int iterations) {
  std::vector<float> parameters = {static_cast<float>(lp_norm), INFINITY, 0};
  double b = beta;
  for (int i = 0; i < iterations; ++i, b *= kappa) {
    parameters.push_back(static_cast<float>(1 / b));
    const double limit = threshold >= 0 ? threshold : std::pow(1 / b, 1 / (2 - lp_norm)) * 0.999;
    parameters.push_back(static_cast<float>(limit));
    parameters[1] = std::min(parameters[1], parameters.back());
    if (parameters[3 + 2 * static_cast<size_t>(i)] != parameters[3]) parameters[2] = 1;
  }
  return parameters;
}

std::vector<float> joint_parameters(double lp_norm, double beta, double kappa, int iterations,
                                    kernels::ZeroKind zero_kind) {
  std::vector<float> parameters = {static_cast<float>(lp_norm), 2, kappa > 1 && iterations > 1 ? 1.0f : 0.0f, 4};
  if (zero_kind == kernels::ZeroKind::symmetric) {
    parameters.insert(parameters.end(), {0, 0, 1, 0, -1, -0.5f, 1, 0.5f});
  } else {
    parameters.insert(parameters.end(), {0, 0, 0.45f, 0.45f, 0, 0.45f, 0.45f, -0.45f});
  }
  for (int i = 0; i < iterations; ++i) parameters.push_back(static_cast<float>(1 / (beta * std::pow(kappa, i))));
  return parameters;
}

namespace {

std::vector<float> hqs_parameters(double kappa, int iterations) {
  std::vector<float> parameters = {1};
  for (int i = 1; i < iterations; ++i)
    parameters.push_back(static_cast<float>(1 / (1 + 0.25 * std::pow(kappa, i - 1))));
  return parameters;
}

// A penalty that grows to 1.
std::vector<float> admm_parameters(int iterations) {
  std::vector<float> parameters = {1};
  for (int i = 1; i < iterations; ++i) parameters.push_back(i < 9 ? 0.625f - 0.015625f * static_cast<float>(i) : 0.5f);
  return parameters;
}

// Parameters of the solver of a case.
std::vector<float> parameters_of(const QuantizeCase& c, std::string_view solver, kernels::ZeroKind zero_kind) {
  if (solver == "hqq") return hqq_parameters(c.lp_norm, c.beta, c.kappa, c.threshold, c.iterations);
  if (solver == "joint") return joint_parameters(c.lp_norm, c.beta, c.kappa, c.iterations, zero_kind);
  if (solver == "hqs") return hqs_parameters(c.kappa, c.iterations);
  if (solver == "admm") return admm_parameters(c.iterations);
  if (solver == "kl") return {160, 0, 160, 0, 144, 16, 160, 24, 150, 40, 120};
  return {};
}

}  // namespace

size_t solver_named(std::string_view name) {
  const auto solvers = kernels::kScalar.solvers;
  return static_cast<size_t>(std::ranges::find(solvers, name, &kernels::Solver::name) - solvers.begin());
}

core::Status QuantizeCase::run(const core::Context& context, Buffers& outputs) const {
  const std::string_view name = solver != nullptr ? solver : iterations > 0 ? "hqq" : "minmax";
  const auto zero_kind = fixed_zero != kernels::ZeroKind::real ? fixed_zero
                         : round_zero                          ? kernels::ZeroKind::rounded_start
                                                               : kernels::ZeroKind::real;
  const auto parameters = parameters_of(*this, name, zero_kind);
  const bool given = !scales.empty();
  const auto operation = given ? &core::encode : &core::quantize;
  return operation(context, {.weights = weights.bytes.data(),
                             .dtype = weights.dtype,
                             .rows = grid.rows,
                             .cols = grid.cols,
                             .axis = axis,
                             .solver = solver_named(name),
                             .options = {.max_code = static_cast<float>(max_code),
                                         .zero_kind = zero_kind,
                                         .reference_guards = reference_guards,
                                         .meta_dtype = meta_dtype,
                                         .scale_dtype = scale_dtype,
                                         .parameters = parameters.data(),
                                         .parameter_count = parameters.size()},
                             .importance = {.values = importance.count == 0 ? nullptr : importance.floats(),
                                            .features = importance.count,
                                            .starts = starts.data(),
                                            .stride = stride},
                             .format = grid.format,
                             .step = grid.step,
                             .block = block,
                             .packed = outputs[0].at(),
                             .scale = given ? const_cast<float*>(scales.data()) : outputs[1].at<float>(),
                             .zero = given ? const_cast<float*>(zeros.data()) : outputs[2].at<float>(),
                             .stats = outputs[3].at<double>()});
}

std::string QuantizeCase::describe() const {
  return grid.describe() +
         text(
             " dtype=%d axis=%d maxCode=%u iterations=%d beta=%g kappa=%g threshold=%g lpNorm=%g roundZero=%d "
             "referenceGuards=%d block=%zu metaDtype=%d",
             static_cast<int>(weights.dtype), axis, max_code, iterations, beta, kappa, threshold, lp_norm, round_zero,
             reference_guards, block, static_cast<int>(meta_dtype)) +
         (scales.empty() ? "" : " given") +
         (solver != nullptr ? text(" solver=%s zeroKind=%d", solver, static_cast<int>(fixed_zero)) : "") +
         (scale_dtype == DType::f32 ? "" : text(" scaleDtype=%d", static_cast<int>(scale_dtype))) +
         (importance.count == 0 ? "" : text(" features=%zu stride=%zu", importance.count, stride));
}

// ---- pack and unpack

PackCase PackCase::random(Random& random) {
  PackCase c{Grid::random(random), {}};
  for (size_t i = 0; i < c.grid.weights(); ++i) c.codes.push_back(static_cast<uint8_t>(random.next() & c.grid.mask()));
  return c;
}

Buffers PackCase::outputs(uint8_t fill) const { return {{"packed", grid.word(), grid.words(), fill}}; }

core::Status PackCase::run(const core::Context& context, Buffers& outputs) const {
  auto* codes_read = const_cast<uint8_t*>(codes.data());
  return core::pack(context, {grid.rows, grid.cols, grid.step, grid.format, codes_read, outputs[0].at()});
}

UnpackCase UnpackCase::random(Random& random) {
  const Grid grid = Grid::random(random);
  return {grid, random_bytes(random, grid.words() * size_of(grid.word()))};
}

Buffers UnpackCase::outputs(uint8_t fill) const { return {{"codes", Element::bytes, grid.weights(), fill}}; }

core::Status UnpackCase::run(const core::Context& context, Buffers& outputs) const {
  auto* packed_read = const_cast<std::byte*>(packed.data());
  return core::unpack(context, {grid.rows, grid.cols, grid.step, grid.format, outputs[0].at<uint8_t>(), packed_read});
}

// ---- dequantize

DequantizeCase DequantizeCase::random(Random& random) {
  DequantizeCase c;
  c.grid = Grid::random(random);
  c.packed = random_bytes(random, c.grid.words() * size_of(c.grid.word()));
  c.axis = static_cast<int>(random.below(2));
  c.scale = Elements(DType::f32, random_weights(random, c.grid.groups(c.axis), DType::f32));
  c.zero = Elements(DType::f32, random_weights(random, c.grid.groups(c.axis), DType::f32));
  c.dtype = random.pick(kAllDTypes);
  c.round_each = random.chance(50);
  return c;
}

Buffers DequantizeCase::outputs(uint8_t fill) const { return {{"out", element_of(dtype), grid.weights(), fill}}; }

core::Status DequantizeCase::run(const core::Context& context, Buffers& outputs) const {
  const core::Quantized matrix{.packed = packed.data(),
                               .format = grid.format,
                               .rows = grid.rows,
                               .cols = grid.cols,
                               .step = grid.step,
                               .axis = axis,
                               .scale = scale.floats(),
                               .zero = zero.floats()};
  return core::dequantize(context, {matrix, dtype, round_each, outputs[0].at()});
}

std::string DequantizeCase::describe() const {
  return grid.describe() + text(" axis=%d dtype=%d roundEach=%d", axis, static_cast<int>(dtype), round_each);
}

// ---- extremes

ExtremesCase ExtremesCase::random(Random& random) {
  ExtremesCase c;
  c.rows = random.pick(kOddSizes), c.cols = random.chance(20) ? 1500 + random.below(20) : random.pick(kOddSizes);
  c.axis = static_cast<int>(random.below(2));
  const DType dtype = random.pick(kAllDTypes);
  c.weights = Elements(dtype, random_weights(random, c.rows * c.cols, dtype));
  return c;
}

Buffers ExtremesCase::outputs(uint8_t fill) const {
  const size_t groups = axis == 1 ? rows : cols;
  return {{"least", Element::f32, groups, fill}, {"most", Element::f32, groups, fill}};
}

core::Status ExtremesCase::run(const core::Context& context, Buffers& outputs) const {
  return core::extremes(context, {.weights = weights.bytes.data(),
                                  .dtype = weights.dtype,
                                  .rows = rows,
                                  .cols = cols,
                                  .axis = axis,
                                  .least = outputs[0].at<float>(),
                                  .most = outputs[1].at<float>()});
}

std::string ExtremesCase::describe() const {
  return text("rows=%zu cols=%zu axis=%d dtype=%d", rows, cols, axis, static_cast<int>(weights.dtype));
}

// ---- distance

DistanceCase DistanceCase::random(Random& random) {
  constexpr size_t kTiles[] = {16383, 16384, 16385, 40000};
  const size_t count = random.chance(20) ? random.pick(kTiles) : random.pick(kOddSizes) * random.pick(kOddSizes);
  const auto elements = [&](DType dtype) { return Elements(dtype, random_weights(random, count, dtype)); };
  DistanceCase c;
  c.a = elements(random.pick(kAllDTypes));
  c.b = elements(random.pick(kAllDTypes));
  return c;
}

Buffers DistanceCase::outputs(uint8_t fill) const { return {{"stats", Element::f64, 4, fill}}; }

core::Status DistanceCase::run(const core::Context& context, Buffers& outputs) const {
  return core::distance(context, {.a = a.bytes.data(),
                                  .a_dtype = a.dtype,
                                  .b = b.bytes.data(),
                                  .b_dtype = b.dtype,
                                  .count = a.count,
                                  .stats = outputs[0].at<double>()});
}

std::string DistanceCase::describe() const {
  return text("count=%zu aDtype=%d bDtype=%d", a.count, static_cast<int>(a.dtype), static_cast<int>(b.dtype));
}

// ---- convert

ConvertCase ConvertCase::random(Random& random) {
  constexpr size_t kUnits[] = {65535, 65536, 65537, 140000};
  const size_t count = random.chance(10) ? random.pick(kUnits) : random.pick(kOddSizes) * random.pick(kOddSizes);
  const DType dtype = random.pick(kAllDTypes);
  return {Elements(dtype, random_weights(random, count, dtype)), random.pick(kAllDTypes)};
}

Buffers ConvertCase::outputs(uint8_t fill) const { return {{"to", element_of(dtype), from.count, fill}}; }

core::Status ConvertCase::run(const core::Context& context, Buffers& outputs) const {
  return core::convert(context, {.from = from.bytes.data(),
                                 .from_dtype = from.dtype,
                                 .to = outputs[0].at(),
                                 .to_dtype = dtype,
                                 .count = from.count});
}

std::string ConvertCase::describe() const {
  return text("count=%zu fromDtype=%d toDtype=%d", from.count, static_cast<int>(from.dtype), static_cast<int>(dtype));
}

}  // namespace hqq::test
