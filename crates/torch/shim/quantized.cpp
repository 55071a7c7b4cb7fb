// Weights of few bits: packing, unpacking, and products that unpack their weight again in the backward pass.
//
// Autograd would keep the unpacked weight of `y = x W^T` for the gradient of x, and the whole network would be in memory at full width
// between the passes.
//
// Formats, as bitsandbytes and torchao have them. `codes` and `scales` make a weight [o, i]:
//   scaled: codes [o, i] int8 or float8; scales f32 [], [1], [o, 1], or [o, i / k, 1] for k columns each; W = codes * scales.
//   nf4: codes uint8, the row-major weight two by two, the even element in the high bits; scales f32, one for 64 elements.
//   nf4 with scales of 8 bits: scales uint8, codes of the dynamic map; nested [1 scale for 256 scales, the map's 256 values, offset].

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "shim.h"

namespace {

using at::Tensor;

constexpr int64_t NF4_BLOCK = 64;
constexpr int64_t NESTED_BLOCK = 256;

// Source: the table `nf4` of bitsandbytes' `backends/utils.py`; arXiv 2305.14314, appendix E.
constexpr std::array<float, 16> NF4 = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

// The nearest value, the first of two equally near; the first one also for what is not a number, as of a block of zeros.
uint8_t nearest_nf4(float value) {
  float best = std::numeric_limits<float>::infinity();
  int32_t found = 0;
  for (int32_t code = 0; code < 16; code++) {
    float away = std::fabs(value - NF4[code]);
    found = away < best ? code : found;
    best = away < best ? away : best;
  }
  return static_cast<uint8_t>(found);
}

struct Weight {
  bool nf4;
  int64_t rows, columns;
  Tensor codes, scales;
  std::vector<Tensor> nested;

  int64_t n() const { return rows * columns; }

  // Of a weight in nf4, one for each block.
  Tensor wide_scales() const {
    if (nested.empty()) return scales.flatten();
    Tensor blocks = nested[1].index_select(0, scales.flatten().to(at::kInt));
    Tensor of_blocks = nested[0].repeat_interleave(NESTED_BLOCK).narrow(0, 0, blocks.numel());
    return blocks.mul_(of_blocks).add_(nested[2]);
  }

  // f32, [o, i], by operations that every device has.
  Tensor wide_anywhere() const {
    if (!nf4) {
      Tensor wide = codes.to(at::kFloat);
      if (scales.dim() == 3) return wide.view({rows, scales.size(1), -1}).mul_(scales).view({rows, columns});
      return wide.mul_(scales);
    }
    std::array<float, 512> pairs;
    for (size_t byte = 0; byte < 256; byte++) {
      pairs[2 * byte] = NF4[byte >> 4];
      pairs[2 * byte + 1] = NF4[byte & 15];
    }
    Tensor table = at::from_blob(pairs.data(), {256, 2}, at::kFloat).to(codes.device(), at::kFloat, false, true);
    Tensor wide = table.index_select(0, codes.flatten().to(at::kInt)).flatten().narrow(0, 0, n());
    Tensor scale = wide_scales();
    int64_t whole = n() / NF4_BLOCK;
    wide.narrow(0, 0, whole * NF4_BLOCK).view({whole, NF4_BLOCK}).mul_(scale.narrow(0, 0, whole).unsqueeze(1));
    if (whole < scale.numel()) wide.narrow(0, whole * NF4_BLOCK, n() - whole * NF4_BLOCK).mul_(scale[whole]);
    return wide.view({rows, columns});
  }

  template <typename T>
  void unpack_nf4(T* out) const {
    Tensor scale = wide_scales().contiguous();
    const uint8_t* code = codes.const_data_ptr<uint8_t>();
    const float* of = scale.const_data_ptr<float>();
    at::parallel_for(0, (n() + NF4_BLOCK - 1) / NF4_BLOCK, 1024, [&](int64_t from, int64_t to) {
      for (int64_t block = from; block < to; block++) {
        std::array<float, 16> values;
        for (size_t k = 0; k < 16; k++) values[k] = NF4[k] * of[block];
        int64_t end = std::min((block + 1) * NF4_BLOCK, n());
        for (int64_t i = block * NF4_BLOCK; i < end; i++) {
          out[i] = static_cast<T>(values[i % 2 == 0 ? code[i / 2] >> 4 : code[i / 2] & 15]);
        }
      }
    });
  }

  // [o, i], rounded once.
  Tensor as(at::ScalarType kind) const {
    if (!nf4 || !codes.device().is_cpu()) return wide_anywhere().to(kind);
    Tensor out = at::empty({rows, columns}, codes.options().dtype(kind));
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, kind, "unpack", [&] { unpack_nf4(out.data_ptr<scalar_t>()); });
    return out;
  }

  void check() const {
    TORCH_CHECK(rows > 0 && columns > 0, "a weight of ", rows, " x ", columns);
    if (!nf4) {
      TORCH_CHECK(codes.dim() == 2 && codes.size(0) == rows && codes.size(1) == columns, "codes of another shape");
      bool by_columns = scales.dim() == 3 && scales.size(0) == rows && columns % scales.size(1) == 0 && scales.size(2) == 1;
      bool by_rows = scales.dim() == 2 && scales.size(0) == rows && scales.size(1) == 1;
      TORCH_CHECK(by_columns || by_rows || scales.numel() == 1, "scales of shape ", scales.sizes(), " for codes of ", codes.sizes());
      return;
    }
    int64_t blocks = (n() + NF4_BLOCK - 1) / NF4_BLOCK;
    TORCH_CHECK(codes.scalar_type() == at::kByte && codes.is_contiguous() && codes.numel() == (n() + 1) / 2, "codes of another size");
    TORCH_CHECK(scales.numel() == blocks, scales.numel(), " scales for ", blocks, " blocks");
    if (nested.empty()) {
      TORCH_CHECK(scales.scalar_type() == at::kFloat, "scales that are not f32");
      return;
    }
    TORCH_CHECK(scales.scalar_type() == at::kByte && nested.size() == 3 && nested[1].numel() == 256 && nested[2].numel() == 1,
                "scales of 8 bits that are not complete");
    TORCH_CHECK(nested[0].numel() == (blocks + NESTED_BLOCK - 1) / NESTED_BLOCK, "scales of another size");
  }
};

struct QuantizedLinear : public torch::autograd::Function<QuantizedLinear> {
  // Where `widens`, computed in f32.
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x, const Weight& weight,
                        const std::optional<Tensor>& bias, bool widens) {
    auto& data = context->saved_data;
    data["nf4"] = weight.nf4;
    data["rows"] = weight.rows;
    data["columns"] = weight.columns;
    data["codes"] = weight.codes;
    data["scales"] = weight.scales;
    data["nested"] = weight.nested;
    data["widens"] = widens;
    if (!widens) return at::linear(x, weight.as(x.scalar_type()), bias);
    auto wide_bias = bias.has_value() ? std::optional<Tensor>(bias->to(at::kFloat)) : std::nullopt;
    return at::linear(x.to(at::kFloat), weight.as(at::kFloat), wide_bias).to(x.scalar_type());
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    auto& data = context->saved_data;
    Weight weight{data["nf4"].toBool(),    data["rows"].toInt(),       data["columns"].toInt(),
                  data["codes"].toTensor(), data["scales"].toTensor(), data["nested"].toTensorVector()};
    const Tensor& g = gradients[0];
    auto kind = data["widens"].toBool() ? at::kFloat : g.scalar_type();
    return {g.to(kind).matmul(weight.as(kind)).to(g.scalar_type()), Tensor(), Tensor(), Tensor()};
  }
};

Weight weight_of(bool nf4, int64_t rows, int64_t columns, const Tensor* const* state, size_t n) {
  TORCH_CHECK(n >= 2, "a quantized weight has codes and scales");
  Weight weight{nf4, rows, columns, *state[0], *state[1], {}};
  for (size_t i = 2; i < n; i++) weight.nested.push_back(*state[i]);
  weight.check();
  return weight;
}

}  // namespace

extern "C" {

// values f32 on the CPU; codes uint8 [n / 2, rounded up], absmax f32 [n / 64, rounded up].
bool tastemaker_pack_nf4(const Tensor* values, Tensor* codes, Tensor* absmax, char** error) {
  return tastemaker::guarded(error, false, [&] {
    int64_t n = values->numel(), blocks = (n + NF4_BLOCK - 1) / NF4_BLOCK;
    TORCH_CHECK(values->is_contiguous() && codes->numel() == (n + 1) / 2 && absmax->numel() == blocks, "sizes differ");
    const float* value = values->const_data_ptr<float>();
    uint8_t* code = codes->data_ptr<uint8_t>();
    float* largest = absmax->data_ptr<float>();
    at::parallel_for(0, blocks, 256, [&](int64_t from, int64_t to) {
      for (int64_t block = from; block < to; block++) {
        int64_t start = block * NF4_BLOCK, end = std::min(start + NF4_BLOCK, n);
        float most = 0.0f;
        for (int64_t i = start; i < end; i++) most = std::max(most, std::fabs(value[i]));
        largest[block] = most;
        float inverse = 1.0f / most;
        std::array<uint8_t, NF4_BLOCK> found{};
        for (int64_t i = start; i < end; i++) {
          found[i - start] = nearest_nf4(std::clamp(value[i] * inverse, -1.0f, 1.0f));
        }
        for (int64_t i = start; i < end; i += 2) {
          uint8_t low = i + 1 < end ? found[i + 1 - start] : 0;
          code[i / 2] = static_cast<uint8_t>(found[i - start] << 4 | low);
        }
      }
    });
    return true;
  });
}

// Whether codes and scales fit together.
bool tastemaker_check_quantized(bool nf4, int64_t rows, int64_t columns, const Tensor* const* state, size_t n, char** error) {
  return tastemaker::guarded(error, false, [&] {
    weight_of(nf4, rows, columns, state, n);
    return true;
  });
}

// `anywhere`: by the operations that every device has.
Tensor* tastemaker_unpack(bool nf4, int64_t rows, int64_t columns, const Tensor* const* state, size_t n, int8_t kind, bool anywhere,
                          char** error) {
  return tastemaker::guarded<Tensor*>(error, nullptr, [&] {
    Weight weight = weight_of(nf4, rows, columns, state, n);
    auto type = static_cast<at::ScalarType>(kind);
    return new Tensor(anywhere ? weight.wide_anywhere().to(type) : weight.as(type));
  });
}

Tensor* tastemaker_quantized_linear(const Tensor* x, bool nf4, int64_t rows, int64_t columns, const Tensor* const* state, size_t n,
                                    const Tensor* bias, bool widens, char** error) {
  return tastemaker::guarded<Tensor*>(error, nullptr, [&] {
    Weight weight = weight_of(nf4, rows, columns, state, n);
    std::optional<Tensor> of_bias = bias ? std::optional<Tensor>(bias->detach()) : std::nullopt;
    return new Tensor(QuantizedLinear::apply(*x, weight, of_bias, widens));
  });
}
}
