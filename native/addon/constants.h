#pragma once
#include <array>
#include <cstddef>

#include "../core/operations.h"
#include "args.h"

// `Constants` of binding.d.ts.
namespace hqq::addon {

inline Napi::Object frozen(Napi::Object object) {
  object.Freeze();
  return object;
}

// [make(row), ...]
template <class Rows, class Make>
Napi::Object frozen_list(Napi::Env env, const Rows& rows, Make make) {
  const Napi::Array list = Napi::Array::New(env);
  for (const auto& row : rows) list.Set(list.Length(), make(row));
  return frozen(list);
}

inline Napi::Object frozen_piece(Napi::Env env, const PanelPiece& piece) {
  const Napi::Object object = Napi::Object::New(env);
  object.Set("vector", piece.vector);
  object.Set("shift", piece.shift);
  object.Set("mask", piece.mask);
  return frozen(object);
}

inline Napi::Object frozen_format(Napi::Env env, const FormatRow& row) {
  const Napi::Object panel = Napi::Object::New(env);
  panel.Set("vectors", static_cast<double>(row.bytes / kQuadBytes));
  const std::vector<PanelQuad> quads(row.places.begin(), row.places.begin() + static_cast<ptrdiff_t>(row.quads));
  panel.Set("quads", frozen_list(env, quads, [env](const PanelQuad& quad) {
              std::vector<PanelPiece> pieces;
              for (const PanelPiece& piece : quad.pieces)
                if (piece.mask != 0) pieces.push_back(piece);
              return frozen_list(env, pieces, [env](const PanelPiece& piece) { return frozen_piece(env, piece); });
            }));
  const Napi::Object object = Napi::Object::New(env);
  object.Set("codeBits", row.bits);
  object.Set("wordBytes", static_cast<double>(row.word_bytes));
  object.Set("fields", static_cast<double>(row.fields));
  object.Set("panel", frozen(panel));
  return frozen(object);
}

inline Napi::Object constants(Napi::Env env) {
  const Napi::Object limits = Napi::Object::New(env);
  limits.Set("group", static_cast<double>(kLongestGroup));
  limits.Set("threads", kMaxThreads);
  limits.Set("sideBySide", static_cast<double>(kernels::kSideBySide));
  limits.Set("iterations", static_cast<double>(kernels::kMaxIterations));
  const Napi::Object all = Napi::Object::New(env);
  const auto set = [&all](const char* name, size_t value) { all.Set(name, static_cast<double>(value)); };
  set("lanes", kernels::kLanes);
  set("blockGroups", kernels::kMaxBlock);
  set("panel", kPanel);
  set("quadBytes", kQuadBytes);
  set("inputSegment", kInputSegment);
  set("keyStrip", kernels::kLanes);
  set("distanceTile", core::kDistanceTile);
  set("cacheGroup", kCacheGroup);
  all.Set("formats", frozen_list(env, kFormats, [env](const FormatRow& row) { return frozen_format(env, row); }));
  const auto dtype = [env](const DTypeRow& row) {
    const Napi::Object object = Napi::Object::New(env);
    object.Set("name", row.name);
    object.Set("bytes", static_cast<double>(row.bytes));
    return frozen(object);
  };
  all.Set("dtypes", frozen_list(env, kDTypeRows, dtype));
  all.Set("cacheTypes", frozen_list(env, kCacheTypeRows, dtype));
  const auto text = [env](const char* name) { return Napi::String::New(env, name); };
  all.Set("solvers", frozen_list(env, kernels::kScalar.solvers,
                                 [text](const kernels::Solver& solver) { return text(solver.name); }));
  all.Set("zeroKinds", frozen_list(env, kernels::kZeroKinds, text));
  all.Set("limits", frozen(limits));
  return frozen(all);
}

}  // namespace hqq::addon
