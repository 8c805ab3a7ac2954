#pragma once
#include <algorithm>
#include <cstddef>

namespace hqq::core {

// Cuts a packed matrix [rows, cols] into tiles that are enough work for a thread and little enough to stay in its
// cache.
class Tiles {
 public:
  // `fields`: codes per word.
  Tiles(size_t rows, size_t cols, size_t fields)
      : rows_(rows),
        cols_(cols),
        width_(std::max<size_t>(1, std::min(cols, kMaxWidth))),
        height_(std::max<size_t>(1, kTileCodes / (width_ * fields))),
        across_((cols + width_ - 1) / width_) {}

  size_t width() const { return width_; }
  size_t count() const { return across_ * ((rows_ + height_ - 1) / height_); }

  // Calls body(row, first column, columns) for the part of each row that lies in the tile.
  template <class Body>
  void for_each_row(size_t tile, const Body& body) const {
    const size_t first_row = tile / across_ * height_, first_col = tile % across_ * width_;
    const size_t last_row = std::min(rows_, first_row + height_), count = std::min(width_, cols_ - first_col);
    for (size_t r = first_row; r < last_row; ++r) body(r, first_col, count);
  }

 private:
  static constexpr size_t kMaxWidth = 2048;
  static constexpr size_t kTileCodes = 32768;
  const size_t rows_, cols_, width_, height_, across_;
};

}  // namespace hqq::core
