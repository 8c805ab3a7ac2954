#include "arguments.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <optional>

#include "../addon/ops.h"

namespace hqq::fuzz {

using Napi::Kind;
using Napi::Stored;

Input* input = nullptr;

namespace {

constexpr size_t kMaxElements = size_t{1} << 15;  // of an array: what is larger is not tried

// Numbers near what a check may get wrong.
constexpr double kHostile[] = {0,           -1,           0.5,          NAN,          INFINITY,
                               -INFINITY,   1e300,        65535,        65536,        65537,
                               2147483647,  2147483648.0, 4294967295.0, 4294967296.0, 268435456,
                               536870912.0, 1073741824.0, 1e-300,       255,          16777216};

double any_number() {
  const uint8_t choice = input->byte();
  if (choice >= 248) return kHostile[input->below(std::size(kHostile))];
  if (choice < 200) return 1 + choice % 40;
  return 1 + input->byte();
}

void fill(Stored& array, std::string_view name) {
  input->stir();
  const size_t mode = input->below(4);
  auto* bytes = reinterpret_cast<uint8_t*>(array.bytes.get());
  if (array.type == napi_float32_array && mode != 0) {
    for (size_t i = 0; i < array.length; ++i) {
      const float x = (static_cast<float>(input->next() & 0xffff) - 32768) * (mode == 1   ? 0x1p-15f
                                                                              : mode == 2 ? 1e-42f
                                                                                          : 1e33f);
      std::memcpy(bytes + 4 * i, &x, sizeof(x));
    }
  } else {
    for (size_t i = 0; i < array.size(); ++i) bytes[i] = static_cast<uint8_t>(input->next());
  }
  if (name == "positions") {  // those of a short text, but for one, at times
    const size_t wild = input->below(4) == 3 ? input->byte() : array.length;
    for (size_t i = 0; i < array.length; ++i) {
      const double number =
          i == wild ? std::fmax(-2e9, std::fmin(any_number(), 2e9)) : static_cast<double>(input->next() % 16);
      const auto position = static_cast<int32_t>(number);
      std::memcpy(array.bytes.get() + i * sizeof(position), &position, sizeof(position));
    }
  }
  if (name == "order") {  // the rows of a word, but for one, at times
    const size_t wild = input->below(16) == 15 ? input->below(8) : array.length;
    for (size_t i = 0; i < array.length; ++i) {
      const auto row = static_cast<int32_t>(i == wild ? input->next() : input->next() % 8);
      std::memcpy(array.bytes.get() + i * sizeof(row), &row, sizeof(row));
    }
  }
  // outFeatures, inFeatures, groupSize, format; of short scales the zero of all groups and whether they are float16
  if (name != "shape" || (array.length != 4 && array.length != 6)) return;
  const auto group = static_cast<int32_t>(1 + input->below(70)), groups = static_cast<int32_t>(1 + input->below(5));
  int32_t shape[6] = {static_cast<int32_t>(1 + input->below(40)),
                      group * groups,
                      group,
                      static_cast<int32_t>(input->below(kFormatCount)),
                      input->below(2) == 0 ? -1 : static_cast<int32_t>(input->below(256)),
                      static_cast<int32_t>(input->below(2))};
  if (input->below(16) == 15)
    shape[input->below(array.length)] = static_cast<int32_t>(std::fmax(-2e9, std::fmin(any_number(), 2e9)));
  std::memcpy(array.bytes.get(), shape, array.size());
}

void become_array(Stored& value, napi_typedarray_type type, size_t length, std::string_view name) {
  value.become_array(type, length);
  fill(value, name);
}

}  // namespace

std::unique_ptr<Stored> make_value(std::string_view name) {
  auto value = std::make_unique<Stored>();
  if (name == "operation") {
    value->kind = Kind::string;
    value->text = addon::kOperations[input->below(addon::kOperations.size())].name;
    return value;
  }
  if (name == "layers" || name == "steps" || name == "segments") {
    value->kind = Kind::list;
    for (size_t i = input->below(4) + 1; i-- > 0;)
      value->entries.emplace_back(std::make_unique<Stored>())->kind = Kind::object;
    return value;
  }
  if (name == "args" || (name == "importance" && input->below(2) == 1)) {
    value->kind = Kind::object;
    return value;
  }
  if (name == "importance") return value;  // left out
  constexpr std::string_view kFlags[] = {"referenceGuards", "roundEach", "int8", "adds", "causal"};
  if (std::ranges::count(kFlags, name) > 0) {
    value->kind = Kind::boolean, value->flag = input->below(2) == 1;
    return value;
  }
  constexpr std::string_view kFloats[] = {"parameters",
                                          "scale",
                                          "zero",
                                          "bias",
                                          "x",
                                          "weight",
                                          "meta",
                                          "weights",
                                          "cos",
                                          "sin",
                                          "q",
                                          "keys",
                                          "out",
                                          "values",
                                          "gate",
                                          "up",
                                          "to",
                                          "from",
                                          "a",
                                          "b",
                                          "k",
                                          "v",
                                          "array",
                                          "keyMeta",
                                          "valueMeta",
                                          "gradient",
                                          "xGradient",
                                          "weightGradient",
                                          "qGradient",
                                          "kGradient",
                                          "vGradient",
                                          "gateGradient",
                                          "upGradient",
                                          "offsets",
                                          "offsetGradient",
                                          "scaleGradient",
                                          "zeroGradient",
                                          "startScale",
                                          "startZero",
                                          "factor",
                                          "shift"};
  if (std::ranges::count(kFloats, name) > 0) {
    become_array(*value, napi_float32_array, input->below(64), name);
    return value;
  }
  constexpr std::string_view kBytes[] = {"codes", "packed", "blocks"};
  if (std::ranges::count(kBytes, name) > 0) {
    become_array(*value, napi_uint8_array, input->below(64), name);
    return value;
  }
  if (name == "shape" || name == "order") {  // in both lengths
    const size_t least = name == "shape" ? 4 : 0, most = name == "shape" ? 6 : 8;
    become_array(*value, napi_int32_array, input->below(2) == 0 ? least : most, name);
    return value;
  }
  if (name == "positions" || name == "starts" || name == "words") {
    become_array(*value, napi_int32_array, name == "positions" ? 4 : input->below(40), name);
    return value;
  }
  value->kind = Kind::number, value->number = any_number();
  if (name == "threads" && value->number <= 1024) value->number = 1 + std::fmod(std::fabs(value->number), 3);
  return value;
}

// ---- doing what a refusal says

namespace {

std::optional<uint64_t> number_after(std::string_view text, std::string_view words) {
  const size_t at = text.find(words);
  if (at == std::string_view::npos) return std::nullopt;
  uint64_t number = 0;
  const char* first = text.data() + at + words.size();
  const auto [end, error] = std::from_chars(first, text.data() + text.size(), number);
  return error == std::errc() ? std::optional(number) : std::nullopt;
}

bool repair_number(Stored& value, std::string_view message) {
  const auto low = number_after(message, "integer in [");
  const auto high =
      number_after(message.substr(message.find(", ") == std::string_view::npos ? 0 : message.find(", ")), ", ");
  if (!low || !high) return false;
  const uint64_t span = std::min<uint64_t>(*high - *low, 40);
  value.kind = Kind::number, value.number = static_cast<double>(*low + input->byte() % (span + 1));
  return true;
}

bool repair_type(Stored& value, std::string_view name, std::string_view message) {
  constexpr std::pair<std::string_view, napi_typedarray_type> kTypes[] = {{"a Uint8Array", napi_uint8_array},
                                                                          {"a Uint16Array", napi_uint16_array},
                                                                          {"an Int32Array", napi_int32_array},
                                                                          {"a Float32Array", napi_float32_array},
                                                                          {"a Float64Array", napi_float64_array}};
  const std::string_view expected = message.substr(0, message.find(", got"));
  if (expected.ends_with("a number")) return value.kind = Kind::number, value.number = any_number(), true;
  if (expected.ends_with("a boolean")) return value.kind = Kind::boolean, value.flag = input->below(2) == 1, true;
  if (expected.ends_with("a typed array")) return become_array(value, napi_uint8_array, 4, name), true;
  for (const auto& [words, type] : kTypes)
    if (expected.ends_with(words)) return become_array(value, type, std::max<size_t>(value.length, 4), name), true;
  return false;
}

// Fields that contradict each other.
bool repair_relation(Stored& object, std::string_view message) {
  const auto number = [&object](const char* name) -> double& {
    return Napi::Object(&object).Get(name).stored()->number;
  };
  const auto set_x = [&](double features) {
    const double rows = 1 + static_cast<double>(input->below(5));
    if (!(features >= 1 && features * rows <= static_cast<double>(kMaxElements))) return false;
    become_array(*Napi::Object(&object).Get("x").stored(), napi_float32_array, static_cast<size_t>(features * rows),
                 "x");
    return true;
  };
  if (message.find("packed rows of") != std::string_view::npos) return number("step") = number("rows"), true;
  if (message.find("turned to be even") != std::string_view::npos)
    return number("headDim") *= 2, number("turned") = number("headDim"), true;
  if (message.find("kvHeads to divide") != std::string_view::npos) return number("kvHeads") = 1, true;
  if (message.find("capacity to be a multiple") != std::string_view::npos)
    return number("capacity") = std::ceil(number("capacity") / 16) * 16, number("capacity") < kMaxElements;
  const auto set_floats = [&](std::string_view name, size_t length) {
    Stored* array = object.find(name);
    return array != nullptr && (become_array(*array, napi_float32_array, length, name), true);
  };
  if (message.find("those of solver hqq") != std::string_view::npos)
    return set_floats("parameters", 3 + 2 * input->below(8));
  if (message.find("those of solver") != std::string_view::npos) return set_floats("parameters", 0);
  if (message.find("for each input feature") != std::string_view::npos)
    return set_floats("values", 1 + input->below(40));
  const auto block_type = [&]() -> const BlockType& { return kBlockTypes[static_cast<size_t>(number("type"))]; };
  if (message.find("cols to fill blocks") != std::string_view::npos)
    return number("cols") = block_type().weights * static_cast<double>(1 + input->below(2)), true;
  if (message.find("whole blocks") != std::string_view::npos) {
    Stored* blocks = object.find("blocks");
    return blocks != nullptr &&
           (become_array(*blocks, napi_uint8_array, block_type().bytes * (1 + input->below(3)), "blocks"), true);
  }
  if (message.find("starts to have a number") != std::string_view::npos)
    return set_floats("starts", 1 + input->below(4));
  if (message.find("the eight rows that words") != std::string_view::npos)
    return number("bits") = 4, number("rows") = std::ceil(number("rows") / 8) * 8, true;
  if (message.find("order to have numbers") != std::string_view::npos)
    return become_array(*Napi::Object(&object).Get("order").stored(), napi_int32_array, 8, "order"), true;
  if (message.find("room for what is packed") != std::string_view::npos) {
    const bool across = object.find("order")->length > 0, turned = object.find("turned")->flag;
    const double lines = across ? number("rows") / 8 : number("rows");
    const double width = across ? number("cols") : std::ceil(number("cols") * number("bits") / 32);
    const auto [height, least] = turned ? std::pair(width, lines) : std::pair(lines, width);
    number("step") = least + static_cast<double>(input->below(4));
    const double length = (height - 1) * number("step") + least;
    if (!(length <= static_cast<double>(kMaxElements))) return false;
    return become_array(*object.find("words"), napi_int32_array, static_cast<size_t>(length), "words"), true;
  }
  const auto features_of = [](const Stored& holder) {
    int32_t shape[4];
    const Stored* array = holder.find("shape");
    if (array == nullptr || array->type != napi_int32_array || array->length < 4) return std::pair(0.0, 0.0);
    std::memcpy(shape, array->bytes.get(), sizeof(shape));
    const double groups = shape[2] > 0 ? static_cast<double>(shape[1]) / shape[2] * shape[0] : 0;
    return std::pair(static_cast<double>(shape[1]), groups);
  };
  if (message.find("groups to fit") != std::string_view::npos) return number("step") = features_of(object).second, true;
  if (message.find("and the weights to be") != std::string_view::npos) {
    number("inFeatures") = number("rows"), number("outFeatures") = number("cols");
    return set_x(number("rows"));
  }
  if (message.find("rows of inFeatures") == std::string_view::npos) return false;
  const Stored* layers = object.find("layers");
  return layers != nullptr && !layers->entries.empty() && set_x(features_of(*layers->entries.front()).first);
}

// All objects below `object`, and itself: where the field of a message may be.
void collect(Stored& object, std::vector<Stored*>& objects) {
  objects.push_back(&object);
  for (const auto& [name, value] : object.fields) {
    for (const auto& entry : value->entries) collect(*entry, objects);
    if (value->kind == Kind::object) collect(*value, objects);
  }
}

}  // namespace

// The last object that was read is the one that a message is about: its fields were made last.
bool repair(Stored& arguments, std::string_view message) {
  std::vector<Stored*> objects;
  collect(arguments, objects);
  std::erase_if(objects, [](const Stored* object) { return object->fields.empty(); });
  std::ranges::reverse(objects);
  for (Stored* object : objects)
    if (repair_relation(*object, message)) return true;
  constexpr std::string_view kStart = "Expected ";
  if (!message.starts_with(kStart)) return false;
  const std::string_view name = message.substr(kStart.size(), message.find(' ', kStart.size()) - kStart.size());
  for (Stored* object : objects) {
    Stored* value = object->find(name);
    if (value == nullptr) continue;
    if (repair_number(*value, message) || repair_type(*value, name, message)) return true;
    auto length = number_after(message, "to have ");
    if (!length) length = number_after(message, "to be empty or to have ");
    // In a list of objects the field may be that of another one: one that has this length already.
    if (!length || value->kind != Kind::typed_array || value->length == *length) continue;
    if (*length > kMaxElements) return false;
    become_array(*value, value->type, *length, name);
    return true;
  }
  return false;
}

}  // namespace hqq::fuzz

// No value of the stand-in is one that `prepare` made.
hqq::addon::Work hqq::addon::read_prepared(Args& args) {
  args.object("sequences");
  throw args.type_error("Expected sequences to be what prepare made.");
}
