#pragma once
#include <algorithm>

#include "parallel.h"

namespace hqq::core {

inline size_t pieces_of(size_t size, size_t piece) { return (size + piece - 1) / piece; }

// Elements of a unit where every element is little work.
inline constexpr size_t kUnit = 16384;

// Calls body(first, count) for units of an array of `count` elements.
template <class Body>
Status for_units(const Context& context, size_t count, const Body& body) {
  return parallel_for(context, pieces_of(count, kUnit),
                      [&](size_t unit, int) { body(unit * kUnit, std::min(kUnit, count - unit * kUnit)); });
}

// Cuts rows into runs of whole tiles: at most `most` rows each, as long as each other as may be, and as many for each
// thread.
class Runs {
 public:
  Runs(size_t rows, size_t tile, size_t most, int threads)
      : rows_(rows), tile_(tile), tiles_(pieces_of(rows, tile)), threads_(static_cast<size_t>(threads)) {
    count_ = std::min(tiles_, pieces_of(pieces_of(rows, most), threads_) * threads_);
  }
  size_t count() const { return count_; }
  size_t begin(size_t run) const { return std::min(rows_, run * tiles_ / count_ * tile_); }
  size_t rows(size_t run) const { return begin(run + 1) - begin(run); }
  // Of the longest, and of what is missing in its last tile.
  size_t room() const { return pieces_of(tiles_, count_) * tile_; }
  // Into how many parts, of at most so many, the work of each is to be cut for all threads to have some.
  size_t parts(size_t most) const { return std::min(most, pieces_of(threads_, count_)); }

 private:
  size_t rows_, tile_, tiles_, threads_, count_;
};

}  // namespace hqq::core
