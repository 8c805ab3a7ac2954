#include <algorithm>
#include <cstring>

#include "operations.h"
#include "parallel.h"
#include "scratch.h"
#include "units.h"

namespace hqq::core {
namespace {

// Rows of x that are multiplied together: their sums and one group of theirs stay in the first-level cache.
constexpr size_t kBandRows = 64;
// Bands of rows that are multiplied with a group's codes when it has been unpacked.
constexpr size_t kBands = 4;
// Rows that a thread arranges together: quads of so many are a cache line, and two threads that write to one line wait
// for each other.
constexpr size_t kArrangedRows = 16;
static_assert(kBandRows % kArrangedRows == 0);
// Weights times rows that are worth a unit of work, and below which a call stays on its own thread: waking another
// takes as long as multiplying them. Where operations follow each other, others are awake.
struct Worth {
  size_t unit, alone;
};
constexpr Worth kWhereAsleep{size_t{1} << 19, size_t{1} << 20};
constexpr Worth kWhereAwake{size_t{1} << 17, size_t{1} << 17};

// x as the kernels read it, for weights in groups of one size.
class ArrangedInput {
 public:
  ArrangedInput(const Linear& op, const Panels& p, Scratch& shared)
      : op_(op),
        size_(p.group_size),
        padded_(4 * p.quads()),
        groups_(p.groups()),
        input_segments_(input_segments(p.quads())) {
    const size_t count = op.batch * groups_, segments = op.int8 ? count * input_segments_ : 0;
    values_ = shared.reserve<std::byte>(count * padded_ * width());
    scale_ = shared.reserve<float>(segments);
    sum_ = shared.reserve<float>(segments);
    total_ = shared.reserve<float>(count);
  }

  bool fits(const Panels& p) const { return p.group_size == size_ && 4 * p.quads() == padded_; }
  void use(const Scratch& shared) { shared_ = &shared; }

  // Some rows that follow each other, of one band. `lines` holds some groups of each, where the band has more rows than
  // one.
  void arrange(const kernels::KernelTable& kernels, size_t row, size_t count, std::byte* lines) const {
    const size_t band = row / kBandRows * kBandRows, rows = std::min(kBandRows, op_.batch - band);
    for (size_t g = 0; g < groups_; g += together()) {
      const size_t some = std::min(together(), groups_ - g), length = some * padded_;
      std::byte* quads = values() + ((band * groups_ + g * rows) * padded_ + (row - band) * 4) * width();
      for (size_t i = 0; i < count; ++i) {
        std::byte* to = rows == 1 ? quads : lines + i * length * width();
        for (size_t n = g; n < g + some; ++n, to += padded_ * width()) arrange_group(kernels.linear, row + i, n, to);
      }
      if (rows == 1) continue;
      if (op_.int8)
        kernels.transpose_u32(reinterpret_cast<const uint32_t*>(lines), count, length / 4, length / 4,
                              reinterpret_cast<uint32_t*>(quads), rows);
      else
        scatter(reinterpret_cast<const Four*>(lines), count, length / 4, reinterpret_cast<Four*>(quads), rows);
    }
  }
  size_t lines_bytes() const { return std::min(kArrangedRows, op_.batch) * together() * padded_ * width(); }

  // The rows of a band.
  kernels::Input input(size_t band) const {
    const size_t at = band * groups_;
    return {values() + at * padded_ * width(), scale() + at * input_segments_, sum() + at * input_segments_,
            total() + at};
  }

 private:
  struct Four {
    float x[4];
  };
  // Groups that are arranged together: of short ones several are a matrix of quads that is worth turning.
  size_t together() const { return std::min(groups_, std::max<size_t>(1, 256 / padded_)); }
  void arrange_group(const kernels::LinearKernels& kernels, size_t row, size_t group, std::byte* to) const {
    const float* x = op_.x + (row * groups_ + group) * size_;
    if (!op_.int8) return kernels.input_f32(x, size_, padded_, reinterpret_cast<float*>(to));
    const size_t band = row / kBandRows * kBandRows, rows = std::min(kBandRows, op_.batch - band);
    const size_t first = band * groups_ + group * rows, at = first * input_segments_ + row - band;
    kernels.input_i8(x, size_, padded_, reinterpret_cast<int8_t*>(to), scale() + at, sum() + at, rows,
                     total() + first + row - band);
  }
  // to[quads][rows] = from[count][quads]
  static void scatter(const Four* from, size_t count, size_t quads, Four* to, size_t rows) {
    for (size_t i = 0; i < count; ++i)
      for (size_t q = 0; q < quads; ++q) to[q * rows + i] = *from++;
  }
  size_t width() const { return op_.int8 ? 1 : sizeof(float); }
  std::byte* values() const { return shared_->at<std::byte>(values_, 0); }
  float* scale() const { return shared_->at<float>(scale_, 0); }
  float* sum() const { return shared_->at<float>(sum_, 0); }
  float* total() const { return shared_->at<float>(total_, 0); }

  const Linear& op_;
  const Scratch* shared_ = nullptr;
  size_t size_, padded_, groups_, input_segments_, values_, scale_, sum_, total_;
};

// Part of a layer's work: some panels, for a band of rows.
struct ProductUnit {
  const Layer* layer;
  const ArrangedInput* x;
  size_t panels_each, first_unit, units_across;
};

void write_panel(const Layer& layer, size_t panel, const float* sums, size_t first_row, size_t rows) {
  const size_t out_features = layer.panels.out_features, first = panel * kPanel;
  const size_t outputs = std::min(kPanel, out_features - first);
  for (size_t r = 0; r < rows; ++r) {
    float* out = layer.out + (first_row + r) * out_features + first;
    const float* sum = sums + r * kPanel;
    if (layer.bias != nullptr)
      for (size_t j = 0; j < outputs; ++j) out[j] = sum[j] + layer.bias[first + j];
    else if (outputs == kPanel)
      std::memcpy(out, sum, kPanel * sizeof(float));  // of known length: no call
    else
      std::copy_n(sum, outputs, out);
  }
}

}  // namespace

Status linear(const Context& given, const Linear& op) {
  const kernels::LinearKernels& kernels = given.kernels.linear;
  size_t work = 0, most_quads = 0;
  for (const Layer& layer : op.layers) {
    work += layer.panels.count() * kPanel * layer.panels.in_features * op.batch;
    most_quads = std::max(most_quads, layer.panels.quads());
  }
  const Worth& worth = given.threads > 1 && others_are_awake() ? kWhereAwake : kWhereAsleep;
  const Context context{given.kernels, work < worth.alone ? 1 : given.threads, given.cancel};
  const auto threads = static_cast<size_t>(context.threads);

  Scratch shared, own;
  std::vector<ArrangedInput> inputs;
  std::vector<ProductUnit> parts;
  inputs.reserve(op.layers.size()), parts.reserve(op.layers.size());
  const size_t band_rows = std::min(kBandRows, op.batch), unit_rows = std::min(kBandRows * kBands, op.batch);
  const size_t down = pieces_of(op.batch, unit_rows);
  // A row alone is multiplied with all panels of a unit at once, many rows with a few after the others.
  const bool single = op.batch == 1;
  const size_t tile = single ? 1 : kernels.tile_panels;
  size_t units = 0, most_panels = 1;
  for (const Layer& layer : op.layers) {
    const Panels& p = layer.panels;
    const auto fits = [&p](const ArrangedInput& x) { return x.fits(p); };
    if (std::none_of(inputs.begin(), inputs.end(), fits)) inputs.emplace_back(op, p, shared);
    const ArrangedInput* x = &*std::find_if(inputs.begin(), inputs.end(), fits);
    const size_t most = std::max<size_t>(2, worth.unit / (kPanel * p.in_features * unit_rows) / 2 * 2);
    // As many for each thread, where there are few.
    const size_t pieces = std::min(p.count(), pieces_of(pieces_of(p.count(), most), threads) * threads);
    const size_t each = pieces_of(pieces_of(p.count(), pieces), tile) * tile, across = pieces_of(p.count(), each);
    parts.push_back({&layer, x, each, units, across});
    units += across * down;
    most_panels = std::max(most_panels, std::min(each, p.count()));
  }
  const size_t sums_at = own.reserve<float>(kPanel * std::max(kernels.tile_panels * unit_rows, most_panels));
  const size_t unpacked_quads = single ? 0 : kernels.tile_panels * ((most_quads + 1) / 2 * 2);
  const size_t bytes_at = own.reserve<uint8_t>(op.int8 ? unpacked_quads * kQuadBytes : 0);
  const size_t tile_at = own.reserve<float>(op.int8 ? 0 : unpacked_quads * kQuadBytes);
  size_t lines_bytes = 0;
  for (const ArrangedInput& x : inputs) lines_bytes = std::max(lines_bytes, x.lines_bytes());
  const size_t lines_at = own.reserve<std::byte>(lines_bytes);
  shared.allocate(1), own.allocate(context.threads);
  for (ArrangedInput& x : inputs) x.use(shared);

  for (const ArrangedInput& x : inputs) {
    const Status status =
        parallel_for(context, (op.batch + kArrangedRows - 1) / kArrangedRows, [&](size_t unit, int slot) {
          const size_t row = unit * kArrangedRows;
          x.arrange(given.kernels, row, std::min(kArrangedRows, op.batch - row), own.at<std::byte>(lines_at, slot));
        });
    if (status != Status::ok) return status;
  }

  return parallel_for(context, units, [&](size_t unit, int slot) {
    const ProductUnit* part = parts.data() + parts.size() - 1;
    while (unit < part->first_unit) --part;
    const Layer& layer = *part->layer;
    const Panels& p = layer.panels;
    const auto format = static_cast<size_t>(p.format);
    const size_t groups = p.groups(), quads = p.quads(), group_bytes = p.group_bytes();
    const size_t first_row = (unit - part->first_unit) / part->units_across * unit_rows;
    const size_t first = (unit - part->first_unit) % part->units_across * part->panels_each;
    const size_t last = std::min(p.count(), first + part->panels_each),
                 last_row = std::min(op.batch, first_row + unit_rows);
    auto* sums = own.at<float>(sums_at, slot);
    auto* bytes = own.at<uint8_t>(bytes_at, slot);
    auto* tile = own.at<float>(tile_at, slot);
    const size_t codes_stride = groups * group_bytes, meta_stride = groups * p.form.bytes();
    // Whole bands of rows, then what is left of them.
    for (size_t row = first_row, bands; row < last_row; row += bands * band_rows) {
      const size_t rows = std::min(band_rows, last_row - row),
                   together = rows == 1 ? last - first : kernels.tile_panels;
      const kernels::Input x = part->x->input(row);
      bands = (last_row - row) / rows;
      for (size_t panel = first; panel < last; panel += together) {
        const size_t count = std::min(together, last - panel);
        const kernels::PanelRows panels{p.codes + panel * codes_stride,
                                        p.meta + panel * meta_stride,
                                        codes_stride,
                                        meta_stride,
                                        groups,
                                        quads,
                                        p.form};
        if (rows == 1)
          (op.int8 ? kernels.bytes.row : kernels.row_f32)[format](panels, x, count, sums);
        else if (op.int8)
          kernels.bytes.rows[format](panels, {x, rows, bands}, count, bytes, sums);
        else
          kernels.rows_f32[format](panels, {x, rows, bands}, count, tile, sums);
        for (size_t b = 0; b < bands; ++b)
          for (size_t n = 0; n < count; ++n)
            write_panel(layer, panel + n, sums + (b * count + n) * rows * kPanel, row + b * rows, rows);
      }
    }
  });
}

}  // namespace hqq::core
