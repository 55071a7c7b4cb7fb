// Steps of AdamW over whole tensors at once, in f32 and with moments of 8 bits, and unscaling of gradients.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "parallel.h"
#include "shim.h"

namespace {

using at::Tensor;

// As `AdamWStep` in Rust.
struct Step {
  double learning_rate, beta1, beta2, weight_decay, epsilon, gradient_scale;
  int64_t number;
};

// The numbers of a step with 8-bit moments, in f32 as its elements are.
struct StepFactors {
  explicit StepFactors(const Step& step)
      : b1(step.beta1), b2(step.beta2), rest1(1 - step.beta1), rest2(1 - step.beta2), scale(step.gradient_scale),
        epsilon(step.epsilon), shrink(1 - step.learning_rate * step.weight_decay),
        rate(step.learning_rate / (1 - std::pow(step.beta1, step.number))),
        correction(std::sqrt(1 - std::pow(step.beta2, step.number))) {}

  float b1, b2, rest1, rest2, scale, epsilon, shrink, rate, correction;
};

std::vector<Tensor> tensors(Tensor* const* pointers, size_t n) {
  std::vector<Tensor> all;
  for (size_t i = 0; i < n; i++) all.push_back(*pointers[i]);
  return all;
}

// The kernels walk through memory, so everything lies there as the parameter does.
Tensor like(const Tensor& tensor, const Tensor& parameter) {
  TORCH_CHECK(tensor.sizes() == parameter.sizes(), "a gradient ", tensor.sizes(), " for a parameter ", parameter.sizes());
  bool fits = tensor.strides() == parameter.strides() && tensor.scalar_type() == parameter.scalar_type() &&
              tensor.device() == parameter.device();
  if (fits) return tensor;
  return at::empty_like(parameter).copy_(tensor);
}

void check_parameter(const Tensor& parameter) {
  TORCH_CHECK(parameter.scalar_type() == at::kFloat && parameter.is_non_overlapping_and_dense(),
              "a parameter is ", parameter.scalar_type(), "; wanted f32 without gaps");
}

// How many elements share a scale.
constexpr int64_t BLOCK = 256;

// 256 values in rising order, and how the one nearest to a number within -1 and 1 is found.
struct Code {
  explicit Code(const Tensor& table) : values(table.data_ptr<float>()) {
    TORCH_CHECK(table.numel() == 256 && table.is_contiguous() && table.is_cpu(), "a code of ", table.numel(),
                " values; wanted 256, on the CPU");
    for (size_t i = 0; i < 255; i++) between[i] = (values[i] + values[i + 1]) / 2;
    between[255] = std::numeric_limits<float>::infinity();
    uint8_t above = 0, below = 0;
    for (uint32_t key = 0; key < KEYS; key++) {
      float from = key == 0 ? 0 : number(key);
      while (between[above] < from) above++;
      from_above[key] = above;
    }
    for (uint32_t key = KEYS; key-- > 0;) {
      float from = -number(key + 1);
      while (between[below] < from) below++;
      from_below[key] = below;
    }
  }

  // The number of the nearest value: how many midpoints lie below `x`.
  uint8_t nearest(float x) const {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof(bits));
    uint32_t size = (bits & 0x7fffffff) >> 16;
    uint32_t key = size <= FIRST ? 0 : std::min(size - FIRST, KEYS - 1);
    uint32_t found = (bits >> 31 ? from_below : from_above)[key];
    found += between[found] < x;
    while (between[found] < x) found++;
    return static_cast<uint8_t>(found);
  }

  // Sign, exponent and seven bits of a number say where the search begins; from 2^-24 up, with all below it as one.
  static constexpr uint32_t FIRST = (127 - 24) << 7, KEYS = (127 << 7) - FIRST + 1;

  static float number(uint32_t key) {
    uint32_t bits = (key + FIRST) << 16;
    float number;
    std::memcpy(&number, &bits, sizeof(number));
    return number;
  }

  const float* values;
  std::array<float, 256> between;
  std::array<uint8_t, KEYS> from_above, from_below;
};

// One moment: a number of the code for each element, and the largest absolute value of each block.
struct Moment {
  Moment(const Tensor& codes, const Tensor& absmax, const Tensor& code, int64_t n)
      : codes(codes.data_ptr<uint8_t>()), absmax(absmax.data_ptr<float>()), code(code) {
    TORCH_CHECK(codes.numel() == n && absmax.numel() == (n + BLOCK - 1) / BLOCK && codes.is_contiguous() &&
                    absmax.is_contiguous() && codes.is_cpu() && absmax.is_cpu(),
                "a state of ", codes.numel(), " codes and ", absmax.numel(), " blocks for ", n, " elements on the CPU");
  }

  void load(int64_t block, int64_t n, float* values) const {
    float scale = absmax[block];
    for (int64_t i = 0; i < n; i++) values[i] = code.values[codes[block * BLOCK + i]] * scale;
  }

  void store(int64_t block, int64_t n, const float* values) {
    float scale = 0;
    for (int64_t i = 0; i < n; i++) {
      float size = std::abs(values[i]);
      // A value that is not finite stays so: it must not vanish in the state.
      if (!(size <= scale) && !std::isnan(scale)) scale = size;
    }
    absmax[block] = scale;
    float inverse = scale > 0 ? 1 / scale : 0;
    for (int64_t i = 0; i < n; i++) codes[block * BLOCK + i] = code.nearest(values[i] * inverse);
  }

  uint8_t* codes;
  float* absmax;
  Code code;
};

// The same moment wherever it lies, by operations that every device has. `between`: midpoints of the code, [255].
struct MomentAnywhere {
  MomentAnywhere(const Tensor& codes, const Tensor& absmax, const Tensor& code, const Tensor& between, int64_t n)
      : codes(codes), absmax(absmax), code(code), between(between) {
    TORCH_CHECK(codes.numel() == n && absmax.numel() == (n + BLOCK - 1) / BLOCK && code.numel() == 256, "a state of ",
                codes.numel(), " codes and ", absmax.numel(), " blocks for ", n, " elements");
  }

  // [length], of elements from `start`, which begins a block.
  Tensor load(int64_t start, int64_t length) const {
    Tensor values = code.index_select(0, codes.narrow(0, start, length).to(at::kInt));
    return values.mul_(blocks(start, length).repeat_interleave(BLOCK).narrow(0, 0, length));
  }

  void store(int64_t start, const Tensor& values) {
    int64_t length = values.numel(), missing = (BLOCK - length % BLOCK) % BLOCK;
    Tensor rows = at::constant_pad_nd(values, {0, missing}).view({-1, BLOCK});
    Tensor scale = rows.abs().amax(1);
    blocks(start, length).copy_(scale);
    Tensor inverse = at::where(scale > 0, scale.reciprocal(), at::zeros_like(scale));
    Tensor found = at::bucketize(rows * inverse.unsqueeze(1), between, true);
    codes.narrow(0, start, length).copy_(found.flatten().narrow(0, 0, length));
  }

  Tensor blocks(int64_t start, int64_t length) const {
    return absmax.narrow(0, start / BLOCK, (length + BLOCK - 1) / BLOCK);
  }

  Tensor codes, absmax, code, between;
};

Tensor midpoints(const Tensor& code) { return (code.narrow(0, 0, 255) + code.narrow(0, 1, 255)).div_(2); }

// The root, rounded once. On the host libtorch's own is a library's that rounds otherwise.
Tensor root(const Tensor& x) { return x.is_cpu() ? x.to(at::kDouble).sqrt_().to(at::kFloat) : x.sqrt(); }

// Elements that are unpacked at once.
constexpr int64_t PIECE = int64_t{1} << 22;

template <typename Work>
void each_block(int64_t n, Work work) {
  tastemaker::in_parallel((n + BLOCK - 1) / BLOCK, 16, [&](int64_t from, int64_t to) {
    for (int64_t block = from; block < to; block++) work(block, std::min(BLOCK, n - block * BLOCK));
  });
}

}  // namespace

extern "C" {

bool tastemaker_adamw(Tensor* const* parameters, Tensor* const* gradients, Tensor* const* first, Tensor* const* second, size_t n,
                      const Step* step, char** error) {
  return tastemaker::guarded(error, false, [&] {
    at::NoGradGuard no_grad;
    std::vector<Tensor> given, numbers;
    for (size_t i = 0; i < n; i++) {
      check_parameter(*parameters[i]);
      given.push_back(like(*gradients[i], *parameters[i]));
      TORCH_CHECK(first[i]->strides() == parameters[i]->strides() && second[i]->strides() == parameters[i]->strides(),
                  "moments lie otherwise in memory than their parameter");
      // The kernel does not count by itself: numbers are those of the step to do.
      numbers.push_back(at::full({}, static_cast<double>(step->number), parameters[i]->options()));
    }
    // Multiplied beforehand: the kernel would divide by the inverse, which rounds otherwise.
    if (n > 0 && step->gradient_scale != 1) at::_foreach_mul_(given, step->gradient_scale);
    at::_fused_adamw_(tensors(parameters, n), given, tensors(first, n), tensors(second, n), {}, numbers, step->learning_rate,
                      step->beta1, step->beta2, step->weight_decay, step->epsilon, false, false);
    return true;
  });
}

bool tastemaker_adamw_8bit(Tensor* parameter, const Tensor* gradient, Tensor* const* state, const Tensor* signed_code,
                           const Tensor* unsigned_code, const Step* step, char** error) {
  return tastemaker::guarded(error, false, [&] {
    at::NoGradGuard no_grad;
    check_parameter(*parameter);
    TORCH_CHECK(parameter->is_cpu(), "a parameter is on ", parameter->device(), "; wanted the CPU");
    Tensor given = like(*gradient, *parameter);
    int64_t n = parameter->numel();
    Moment first(*state[0], *state[1], *signed_code, n), second(*state[2], *state[3], *unsigned_code, n);
    const StepFactors f(*step);
    float* p = parameter->data_ptr<float>();
    const float* g = given.data_ptr<float>();
    each_block(n, [&](int64_t block, int64_t length) {
      std::array<float, BLOCK> m, v;
      first.load(block, length, m.data());
      second.load(block, length, v.data());
      float* here = p + block * BLOCK;
      for (int64_t i = 0; i < length; i++) {
        float slope = g[block * BLOCK + i] * f.scale;
        m[i] = f.b1 * m[i] + f.rest1 * slope;
        v[i] = f.b2 * v[i] + f.rest2 * slope * slope;
        here[i] = here[i] * f.shrink - f.rate * m[i] / (std::sqrt(v[i]) / f.correction + f.epsilon);
      }
      first.store(block, length, m.data());
      second.store(block, length, v.data());
    });
    return true;
  });
}

// As `tastemaker_adamw_8bit`, by operations that every device has: each rounds for itself, so that codes are the same.
bool tastemaker_adamw_8bit_anywhere(Tensor* parameter, const Tensor* gradient, Tensor* const* state, const Tensor* signed_code,
                                    const Tensor* unsigned_code, const Step* step, char** error) {
  return tastemaker::guarded(error, false, [&] {
    at::NoGradGuard no_grad;
    check_parameter(*parameter);
    int64_t n = parameter->numel();
    auto flat = [n](const Tensor& tensor) { return tensor.detach().as_strided({n}, {1}); };
    Tensor p = flat(*parameter), g = flat(like(*gradient, *parameter));
    MomentAnywhere first(*state[0], *state[1], *signed_code, midpoints(*signed_code), n);
    MomentAnywhere second(*state[2], *state[3], *unsigned_code, midpoints(*unsigned_code), n);
    const StepFactors f(*step);
    // Devices multiply by the inverse of a number of the host.
    Tensor corrected = at::full({}, f.correction, p.options());
    for (int64_t start = 0; start < n; start += PIECE) {
      int64_t length = std::min(PIECE, n - start);
      Tensor slope = g.narrow(0, start, length) * f.scale;
      Tensor m = first.load(start, length).mul_(f.b1).add_(slope * f.rest1);
      Tensor v = second.load(start, length).mul_(f.b2).add_((slope * f.rest2).mul_(slope));
      Tensor here = p.narrow(0, start, length);
      here.mul_(f.shrink).sub_((m * f.rate).div_(root(v).div_(corrected).add_(f.epsilon)));
      first.store(start, m);
      second.store(start, v);
    }
    return true;
  });
}

// Sum of squares of everything, in f64.
Tensor* tastemaker_squared_length(Tensor* const* all, size_t n, char** error) {
  return tastemaker::guarded<Tensor*>(error, nullptr, [&] {
    at::NoGradGuard no_grad;
    std::vector<Tensor> norms = at::_foreach_norm(tensors(all, n), 2, at::kDouble);
    return new Tensor(at::stack(norms).square().sum());
  });
}

bool tastemaker_quantize(const Tensor* values, Tensor* codes, Tensor* absmax, const Tensor* code, char** error) {
  return tastemaker::guarded(error, false, [&] {
    TORCH_CHECK(values->is_cpu(), "values are on ", values->device(), "; wanted the CPU");
    Tensor given = values->contiguous();
    Moment moment(*codes, *absmax, *code, given.numel());
    const float* from = given.data_ptr<float>();
    each_block(given.numel(), [&](int64_t block, int64_t length) { moment.store(block, length, from + block * BLOCK); });
    return true;
  });
}

// Whether any value was not finite, in `*found`.
bool tastemaker_unscale(Tensor* const* gradients, size_t n, double inverse, bool* found, char** error) {
  return tastemaker::guarded(error, false, [&] {
    at::NoGradGuard no_grad;
    if (n == 0) return true;
    Tensor seen = at::zeros({1}, gradients[0]->options().dtype(at::kFloat));
    at::_amp_foreach_non_finite_check_and_unscale_(tensors(gradients, n), seen, at::full_like(seen, inverse).squeeze());
    *found = seen.item<float>() != 0;
    return true;
  });
}
}
