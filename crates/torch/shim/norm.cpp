// Group normalization of feature maps whose channels are innermost.
//
// libtorch's kernel for this layout takes the variance as mean of squares minus square of mean, which is nothing but rounding
// where a map is nearly flat. Here distances are taken from a value near the mean of each block of pixels, and blocks are put
// together by Chan's formula. Nothing depends on the number of threads.

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <tuple>
#include <vector>

#include "parallel.h"
#include "shim.h"

// The compiler makes a version of each loop for every width of registers, and the processor at hand gets its own.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_THIS_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_THIS_PROCESSOR
#endif
#define RESTRICT __restrict

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// Values of a block.
constexpr int64_t BLOCK_VALUES = 32 << 10;

// Rows from one to the next of those whose mean a block's distances are taken from. The mean of an eighth of some numbers is at
// most sqrt(7) standard deviations away from that of all, which costs f32 three of its 24 bits at most.
constexpr int64_t STRIDE = 8;

FOR_THIS_PROCESSOR void widen(const uint16_t* RESTRICT narrow, float* RESTRICT wide, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    uint32_t bits = static_cast<uint32_t>(narrow[i]) << 16;
    std::memcpy(&wide[i], &bits, sizeof(bits));
  }
}

// Rounds to the nearest bfloat16, ties to even; what is not a number stays so.
FOR_THIS_PROCESSOR void narrow(const float* RESTRICT wide, uint16_t* RESTRICT narrow, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    uint32_t bits;
    std::memcpy(&bits, &wide[i], sizeof(bits));
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    narrow[i] = (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : static_cast<uint16_t>(rounded);
  }
}

// sum[c] += x[., c], of every `STRIDE`th row
FOR_THIS_PROCESSOR void add_some_rows(const float* RESTRICT x, int64_t n, int64_t c, float* RESTRICT sum) {
  for (int64_t row = 0; row < n; row += STRIDE)
    for (int64_t i = 0; i < c; i++) sum[i] += x[row * c + i];
}

// The sum of some channels, in eight strands that need not wait for each other.
FOR_THIS_PROCESSOR double total_of(const float* RESTRICT x, int64_t n) {
  double strands[8] = {}, sum = 0;
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int64_t k = 0; k < 8; k++) strands[k] += x[i + k];
  for (double strand : strands) sum += strand;
  for (; i < n; i++) sum += x[i];
  return sum;
}

// sum[c] += x[., c] - center[c], square[c] += (x[., c] - center[c])^2
FOR_THIS_PROCESSOR void add_distances(const float* RESTRICT x, int64_t n, int64_t c, const float* RESTRICT center,
                                      float* RESTRICT sum, float* RESTRICT square) {
  int64_t row = 0;
  // Four rows at a time, so that sums are loaded and stored a fourth as often.
  for (; row + 4 <= n; row += 4, x += 4 * c)
    for (int64_t i = 0; i < c; i++) {
      float p = x[i] - center[i], q = x[c + i] - center[i], r = x[2 * c + i] - center[i], s = x[3 * c + i] - center[i];
      sum[i] += (p + q) + (r + s);
      square[i] += (p * p + q * q) + (r * r + s * s);
    }
  for (; row < n; row++, x += c)
    for (int64_t i = 0; i < c; i++) {
      float away = x[i] - center[i];
      sum[i] += away;
      square[i] += away * away;
    }
}

// y[., c] = (x[., c] - mean[c]) scale[c] + shift[c]
FOR_THIS_PROCESSOR void normalize(const float* RESTRICT x, int64_t n, int64_t c, const float* RESTRICT mean, const float* RESTRICT scale,
                                  const float* RESTRICT shift, float* RESTRICT y) {
  for (int64_t row = 0; row < n; row++, x += c, y += c)
    for (int64_t i = 0; i < c; i++) y[i] = (x[i] - mean[i]) * scale[i] + shift[i];
}

// sum[c] += g[., c], product[c] += g[., c] (x[., c] - mean[c])
FOR_THIS_PROCESSOR void add_products(const float* RESTRICT g, const float* RESTRICT x, int64_t n, int64_t c,
                                     const float* RESTRICT mean, float* RESTRICT sum, float* RESTRICT product) {
  int64_t row = 0;
  for (; row + 2 <= n; row += 2, g += 2 * c, x += 2 * c)
    for (int64_t i = 0; i < c; i++) {
      sum[i] += g[i] + g[c + i];
      product[i] += g[i] * (x[i] - mean[i]) + g[c + i] * (x[c + i] - mean[i]);
    }
  if (row < n)
    for (int64_t i = 0; i < c; i++) {
      sum[i] += g[i];
      product[i] += g[i] * (x[i] - mean[i]);
    }
}

// d[., c] = g[., c] scale[c] - (x[., c] - mean[c]) slope[c] - level[c]
FOR_THIS_PROCESSOR void apply_back(const float* RESTRICT g, const float* RESTRICT x, int64_t n, int64_t c, const float* RESTRICT mean, const float* RESTRICT scale,
                                   const float* RESTRICT slope, const float* RESTRICT level, float* RESTRICT d) {
  for (int64_t row = 0; row < n; row++, g += c, x += c, d += c)
    for (int64_t i = 0; i < c; i++) d[i] = g[i] * scale[i] - (x[i] - mean[i]) * slope[i] - level[i];
}

// Room for a block of bfloat16 while it is f32, taken when it is first needed.
struct Room {
  float* of(int64_t n) {
    if (!values) values.reset(new float[n]);
    return values.get();
  }

  std::unique_ptr<float[]> values;
};

// A map in memory, f32 or bfloat16: rows of pixels, channels innermost.
struct Map {
  explicit Map(const Tensor& tensor)
      : data(tensor.data_ptr()), is_narrow(tensor.scalar_type() == at::kBFloat16), c(tensor.size(1)) {}

  // A block as f32: where it lies, or widened into `room`.
  const float* load(int64_t row, int64_t n, Room& room) const {
    if (!is_narrow) return static_cast<const float*>(data) + row * c;
    float* wide = room.of(std::max(BLOCK_VALUES, c));
    widen(static_cast<const uint16_t*>(data) + row * c, wide, n * c);
    return wide;
  }

  // Where a block of results goes, before `store`.
  float* place(int64_t row, Room& room) const {
    return is_narrow ? room.of(std::max(BLOCK_VALUES, c)) : static_cast<float*>(data) + row * c;
  }

  void store(int64_t row, int64_t n, Room& room) const {
    if (is_narrow) narrow(place(row, room), static_cast<uint16_t*>(data) + row * c, n * c);
  }

  void* data;
  bool is_narrow;
  int64_t c;
};

// How a batch of maps is cut into blocks of pixels.
struct Blocks {
  Blocks(const Tensor& x, int64_t groups)
      : b(x.size(0)), c(x.size(1)), pixels(x.size(2) * x.size(3)), groups(groups), width(c / groups),
        rows(std::max<int64_t>(1, BLOCK_VALUES / c)), per_map((pixels + rows - 1) / rows) {}

  // Calls `work` with the map, the block of it, the first row of all maps, and the number of rows.
  template <typename Work>
  void each(Work work) const {
    tastemaker::in_parallel(b * per_map, 1, [&](int64_t from, int64_t to) {
      Room room, other, result;
      for (int64_t i = from; i < to; i++) {
        int64_t map = i / per_map, first = i % per_map * rows;
        work(map, i, map * pixels + first, std::min(rows, pixels - first), room, other, result);
      }
    });
  }

  int64_t b, c, pixels, groups, width, rows, per_map;
};

// Mean and 1 / sqrt(variance + eps) of each group, [b, groups] f64.
std::tuple<Tensor, Tensor> moments(const Tensor& x, const Blocks& blocks, double eps) {
  int64_t groups = blocks.groups, width = blocks.width, c = blocks.c;
  // Mean and sum of squared distances of each group in each block.
  std::vector<double> means(blocks.b * blocks.per_map * groups), squares(means.size());
  Map map(x);
  blocks.each([&](int64_t, int64_t block, int64_t row, int64_t n, auto& room, auto&, auto&) {
    const float* values = map.load(row, n, room);
    std::vector<float> sum(c), square(c), centers(c);
    add_some_rows(values, n, c, sum.data());
    int64_t n_some = (n + STRIDE - 1) / STRIDE;
    for (int64_t g = 0; g < groups; g++) {
      double total = total_of(&sum[g * width], width);
      std::fill_n(centers.begin() + g * width, width, static_cast<float>(total / (n_some * width)));
    }
    std::fill(sum.begin(), sum.end(), 0.0f);
    add_distances(values, n, c, centers.data(), sum.data(), square.data());
    for (int64_t g = 0; g < groups; g++) {
      // How far the center is from the mean, whatever was rounded on the way to it.
      double off = total_of(&sum[g * width], width) / (n * width);
      double total = total_of(&square[g * width], width);
      means[block * groups + g] = centers[g * width] + off;
      squares[block * groups + g] = std::max(0.0, total - n * width * off * off);
    }
  });
  auto options = at::TensorOptions().dtype(at::kDouble);
  Tensor mean = at::empty({blocks.b, groups}, options), rstd = at::empty({blocks.b, groups}, options);
  double *mean_at = mean.data_ptr<double>(), *rstd_at = rstd.data_ptr<double>();
  for (int64_t one = 0; one < blocks.b; one++) {
    for (int64_t g = 0; g < groups; g++) {
      double count = 0, center = 0, total = 0;
      for (int64_t i = 0; i < blocks.per_map; i++) {
        int64_t at = (one * blocks.per_map + i) * groups + g;
        double n = static_cast<double>(std::min(blocks.rows, blocks.pixels - i * blocks.rows) * width);
        double away = means[at] - center;
        count += n;
        center += away * n / count;
        total += squares[at] + away * away * n * (count - n) / count;
      }
      mean_at[one * groups + g] = center;
      rstd_at[one * groups + g] = 1 / std::sqrt(total / count + eps);
    }
  }
  return {mean, rstd};
}

// The f32 factors of each channel of one map.
struct Factors {
  explicit Factors(int64_t c) : mean(c), one(c), two(c), three(c) {}
  std::vector<float> mean, one, two, three;
};

// Group normalization of x [b, c, h, w], channels innermost, f32 or bfloat16; weight and bias [c].
struct GroupNorm : public Function<GroupNorm> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t groups,
                        double eps) {
    Tensor input = x.contiguous(at::MemoryFormat::ChannelsLast);
    Blocks blocks(input, groups);
    auto [mean, rstd] = moments(input, blocks, eps);
    Tensor gamma = weight.to(at::kDouble).contiguous(), beta = bias.to(at::kDouble).contiguous();
    std::vector<Factors> factors(blocks.b, Factors(blocks.c));
    for (int64_t one = 0; one < blocks.b; one++) {
      for (int64_t i = 0; i < blocks.c; i++) {
        int64_t at = one * groups + i / blocks.width;
        double center = mean.data_ptr<double>()[at], scale = rstd.data_ptr<double>()[at] * gamma.data_ptr<double>()[i];
        Factors& f = factors[one];
        f.mean[i] = static_cast<float>(center);
        f.one[i] = static_cast<float>(scale);
        // The mean's digits beyond f32.
        f.two[i] = static_cast<float>(beta.data_ptr<double>()[i] - (center - f.mean[i]) * scale);
      }
    }
    Tensor output = at::empty_like(input);
    Map from(input), to(output);
    blocks.each([&](int64_t one, int64_t, int64_t row, int64_t n, auto& room, auto&, auto& result) {
      const Factors& f = factors[one];
      normalize(from.load(row, n, room), n, blocks.c, f.mean.data(), f.one.data(), f.two.data(), to.place(row, result));
      to.store(row, n, result);
    });
    context->save_for_backward({input, weight, mean, rstd});
    context->saved_data["groups"] = groups;
    context->saved_data["kind"] = static_cast<int64_t>(bias.scalar_type());
    return output;
  }

  // With h = (x - mean) rstd, G = gamma g, and averages over a group: d = rstd (G - average(G) - h average(G h)).
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &mean = saved[2], &rstd = saved[3];
    int64_t groups = context->saved_data["groups"].toInt();
    Blocks blocks(x, groups);
    Tensor g = gradients[0].to(x.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast);
    Tensor gamma = weight.to(at::kDouble).contiguous();
    const double *mean_at = mean.data_ptr<double>(), *rstd_at = rstd.data_ptr<double>(), *gamma_at = gamma.data_ptr<double>();
    std::vector<Factors> factors(blocks.b, Factors(blocks.c));
    for (int64_t one = 0; one < blocks.b; one++)
      for (int64_t i = 0; i < blocks.c; i++)
        factors[one].mean[i] = static_cast<float>(mean_at[one * groups + i / blocks.width]);

    // Of each channel in each block: sums of g and of g (x - mean).
    std::vector<float> sums(blocks.b * blocks.per_map * blocks.c), products(sums.size());
    Map of_x(x), of_g(g);
    blocks.each([&](int64_t one, int64_t block, int64_t row, int64_t n, auto& room, auto& other, auto&) {
      add_products(of_g.load(row, n, room), of_x.load(row, n, other), n, blocks.c, factors[one].mean.data(),
                   &sums[block * blocks.c], &products[block * blocks.c]);
    });
    auto options = at::TensorOptions().dtype(at::kDouble);
    Tensor of_weight = at::zeros({blocks.c}, options), of_bias = at::zeros({blocks.c}, options);
    double count = static_cast<double>(blocks.pixels * blocks.width);
    for (int64_t one = 0; one < blocks.b; one++) {
      for (int64_t group = 0; group < groups; group++) {
        double r = rstd_at[one * groups + group], center = mean_at[one * groups + group], level = 0, slope = 0;
        for (int64_t i = group * blocks.width; i < (group + 1) * blocks.width; i++) {
          double sum = 0, product = 0;
          for (int64_t at = one * blocks.per_map; at < (one + 1) * blocks.per_map; at++) {
            sum += sums[at * blocks.c + i];
            product += products[at * blocks.c + i];
          }
          product -= sum * (center - factors[one].mean[i]);
          of_bias.data_ptr<double>()[i] += sum;
          of_weight.data_ptr<double>()[i] += product * r;
          level += sum * gamma_at[i];
          slope += product * gamma_at[i];
        }
        for (int64_t i = group * blocks.width; i < (group + 1) * blocks.width; i++) {
          Factors& f = factors[one];
          double steep = slope * r * r * r / count;
          f.one[i] = static_cast<float>(r * gamma_at[i]);
          f.two[i] = static_cast<float>(steep);
          f.three[i] = static_cast<float>(level * r / count - (center - f.mean[i]) * steep);
        }
      }
    }
    Tensor of_input;
    if (context->needs_input_grad(0)) {
      of_input = at::empty_like(x);
      Map to(of_input);
      blocks.each([&](int64_t one, int64_t, int64_t row, int64_t n, auto& room, auto& other, auto& result) {
        const Factors& f = factors[one];
        apply_back(of_g.load(row, n, room), of_x.load(row, n, other), n, blocks.c, f.mean.data(), f.one.data(), f.two.data(),
                   f.three.data(), to.place(row, result));
        to.store(row, n, result);
      });
    }
    auto kind = static_cast<at::ScalarType>(context->saved_data["kind"].toInt());
    return {of_input, of_weight.to(weight.scalar_type()), of_bias.to(kind), Tensor(), Tensor()};
  }
};

// Whether libtorch would take the kernel that errs.
bool is_innermost(const Tensor& x) {
  return x.is_cpu() && x.dim() == 4 && x.suggest_memory_format() == at::MemoryFormat::ChannelsLast && x.numel() > 0;
}

}  // namespace

extern "C" {

Tensor* tastemaker_group_norm(const Tensor* x, int64_t groups, const Tensor* weight, const Tensor* bias, double eps,
                              char** error) {
  return tastemaker::guarded<Tensor*>(error, nullptr, [&] {
    if (!is_innermost(*x)) return new Tensor(at::group_norm(*x, groups, *weight, *bias, eps));
    TORCH_CHECK(x->size(1) % groups == 0 && weight->numel() == x->size(1) && bias->numel() == x->size(1), "a map of ",
                x->size(1), " channels in ", groups, " groups with ", weight->numel(), " and ", bias->numel(), " factors");
    auto kind = x->scalar_type();
    if (kind == at::kFloat || kind == at::kBFloat16)
      return new Tensor(GroupNorm::apply(*x, *weight, *bias, groups, eps));
    if (kind == at::kHalf) return new Tensor(GroupNorm::apply(x->to(at::kFloat), *weight, *bias, groups, eps).to(kind));
    return new Tensor(at::group_norm(x->contiguous(), groups, *weight, *bias, eps));
  });
}
}
