#pragma once
#include <type_traits>
#include <utility>

#include "table.h"

namespace hqq::kernels {

// Codes in words, both ways, for any format: F says how many fields a word has and where they are. One row of words at
// a time, a vector of words in registers, every field of it in turn.

template <class V, class F, int Field>
auto field_words(const uint8_t* codes) {
  if constexpr (sizeof(typename F::Word) == 1) {
    return V::template shift_left<F::shift(Field)>(V::load_bytes(codes));
  } else {
    return V::template shift_left<F::shift(Field)>(V::words_of_u8(codes));
  }
}

template <class V, class F>
void pack_row(const uint8_t* const* fields, size_t count, void* row) {
  using Word = typename F::Word;
  constexpr size_t kStep = sizeof(Word) == 1 ? V::kBytes : kLanes;
  auto* words = static_cast<Word*>(row);
  [&]<int... Rest>(std::integer_sequence<int, Rest...>) {
    size_t c = 0;
    for (; c + kStep <= count; c += kStep) {
      auto word = field_words<V, F, 0>(fields[0] + c);
      ((word = V::merge(word, field_words<V, F, Rest + 1>(fields[Rest + 1] + c))), ...);
      if constexpr (sizeof(Word) == 1) {
        V::store_bytes(words + c, word);
      } else {
        V::store_words(words + c, word);
      }
    }
    for (; c < count; ++c) {
      uint32_t word = static_cast<uint32_t>(fields[0][c]) << F::shift(0);
      ((word |= static_cast<uint32_t>(fields[Rest + 1][c]) << F::shift(Rest + 1)), ...);
      words[c] = static_cast<Word>(word);
    }
  }(std::make_integer_sequence<int, F::kFields - 1>{});
}

template <class V, class F>
void unpack_row(const void* row, size_t count, int present, uint8_t* const* fields) {
  using Word = typename F::Word;
  constexpr size_t kStep = sizeof(Word) == 1 ? V::kBytes : kLanes;
  const auto* words = static_cast<const Word*>(row);
  [&]<int... Field>(std::integer_sequence<int, Field...>) {
    size_t c = 0;
    for (; c + kStep <= count; c += kStep) {
      if constexpr (sizeof(Word) == 1) {
        const auto word = V::load_bytes(words + c);
        ((Field < present ? V::store_bytes(fields[Field] + c, V::template shift_mask<F::shift(Field), F::kMask>(word))
                          : void()),
         ...);
      } else {
        const auto word = V::load_words(words + c);
        ((Field < present
              ? V::store_words_u8(fields[Field] + c, V::template shift_mask<F::shift(Field), F::kMask>(word))
              : void()),
         ...);
      }
    }
    for (; c < count; ++c)
      ((Field < present ? void(fields[Field][c] = static_cast<uint8_t>((words[c] >> F::shift(Field)) & F::kMask))
                        : void()),
       ...);
  }(std::make_integer_sequence<int, F::kFields>{});
}

// to[c][r] = from[r][c], in tiles of sixteen by sixteen.
template <class V, class T>
void transpose(const T* from, size_t rows, size_t cols, size_t from_stride, T* to, size_t to_stride) {
  const size_t full_rows = rows / 16 * 16, full_cols = cols / 16 * 16;
  for (size_t r = 0; r < full_rows; r += 16)
    for (size_t c = 0; c < full_cols; c += 16)
      V::transpose16(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride);
  for (size_t r = 0; r < rows; ++r)
    for (size_t c = r < full_rows ? full_cols : 0; c < cols; ++c) to[c * to_stride + r] = from[r * from_stride + c];
}

}  // namespace hqq::kernels
