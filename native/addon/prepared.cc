#include "prepared.h"

#include <memory>
#include <utility>
#include <vector>

namespace hqq::addon {
namespace {

// Tells our objects from all others.
constexpr napi_type_tag kTag = {0x6871712070726570, 0x6172656420736571};

struct Prepared {
  std::vector<std::shared_ptr<const Work>> sequences;
  std::vector<Args::Memory> memory;
  Napi::Reference<Napi::Array> arrays;
};

}  // namespace

Napi::Object prepare(Napi::Env env, Args args) {
  auto prepared = std::make_unique<Prepared>();
  args.each("sequences", kMaxSteps,
            [&] { prepared->sequences.push_back(std::make_shared<Work>(read_work(args, kSequence))); });
  if (args.has_added()) throw args.type_error("Expected steps to prepare that are not prepared.");
  args.check_unchanged();
  args.keep_last_of_each_buffer();
  prepared->memory = args.memory();
  prepared->arrays = Napi::Persistent(args.held());
  const Napi::Object object = Napi::Object::New(env);
  const auto destroy = [](napi_env, void* data, void*) { delete static_cast<Prepared*>(data); };
  if (napi_wrap(env, object, prepared.get(), destroy, nullptr, nullptr) != napi_ok) throw Napi::Error::New(env);
  prepared.release();  // the object's
  object.TypeTag(&kTag);
  return object;
}

Work read_prepared(Args& args) {
  const Napi::Object object = args.object("sequences");
  void* data = nullptr;
  if (!object.CheckTypeTag(&kTag) || napi_unwrap(object.Env(), object, &data) != napi_ok) {
    throw args.type_error("Expected sequences to be what prepare made.");
  }
  const auto& prepared = *static_cast<const Prepared*>(data);
  const size_t index = args.integer("index", 0, static_cast<uint32_t>(prepared.sequences.size() - 1));
  args.add_read(prepared.arrays.Value(), prepared.memory);
  return {1, [work = prepared.sequences[index]](const core::Context& context) { return work->run(context); }};
}

}  // namespace hqq::addon
