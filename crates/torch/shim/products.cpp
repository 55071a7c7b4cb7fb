// Products of bfloat16 tensors, computed in f32 and kept in bfloat16, and convolutions that keep no more than they need.
//
// The former are for processors without bfloat16 instructions, where libtorch's own bfloat16 products are several times slower than f32.
// Under autograd only the bfloat16 operands are kept; the f32 copies live as long as one product.
//
// Every function takes and gives `at::Tensor*`.

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdlib>
#include <optional>
#include <tuple>

#include "shim.h"

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::Variable;
using torch::autograd::variable_list;
using MaybeTensor = std::optional<Tensor>;

Tensor wide(const Tensor& narrow) { return narrow.to(at::kFloat); }

MaybeTensor wide(const MaybeTensor& narrow) {
  return narrow.has_value() && narrow->defined() ? MaybeTensor(wide(*narrow)) : std::nullopt;
}

bool needs_gradient(const MaybeTensor& tensor) { return tensor.has_value() && tensor->defined() && tensor->requires_grad(); }

// The gradient of a product needs each operand only for the sake of the other one.
variable_list operands(const Tensor& x, const Tensor& weight) {
  return {weight.requires_grad() ? x : Tensor(), x.requires_grad() ? weight : Tensor()};
}

// x [.., i], weight [o, i], bias [o] -> [.., o]
struct Linear : public Function<Linear> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight, const MaybeTensor& bias) {
    context->save_for_backward(operands(x, weight));
    context->saved_data["bias"] = needs_gradient(bias);
    return at::linear(wide(x), wide(weight), wide(bias)).to(x.scalar_type());
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1];
    auto kind = gradients[0].scalar_type();
    Tensor g = wide(gradients[0]);
    Tensor rows = g.reshape({-1, g.size(-1)});  // [n, o]
    Tensor of_x, of_weight, of_bias;
    if (weight.defined()) of_x = g.matmul(wide(weight)).to(kind);
    if (x.defined()) of_weight = rows.t().matmul(wide(x).reshape({-1, x.size(-1)})).to(kind);
    if (context->saved_data["bias"].toBool()) of_bias = rows.sum(0).to(kind);
    return {of_x, of_weight, of_bias};
  }
};

// x [b, i, h, w], weight [o, i, k, k], bias [o] -> [b, o, h', w']; equal stride and padding on both axes. Where `widens`, computed in
// f32.
//
// libtorch's own keeps x for the gradient of the weight, also where the weight is frozen.
struct Convolution : public Function<Convolution> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight, const MaybeTensor& bias,
                        int64_t stride, int64_t padding, bool widens) {
    context->save_for_backward(operands(x, weight));
    context->saved_data["bias"] = needs_gradient(bias);
    context->saved_data["bias_size"] = weight.size(0);
    context->saved_data["x_size"] = x.sizes().vec();
    context->saved_data["x_layout"] = static_cast<int64_t>(x.suggest_memory_format());
    context->saved_data["weight_size"] = weight.sizes().vec();
    context->saved_data["weight_layout"] = static_cast<int64_t>(weight.suggest_memory_format());
    context->saved_data["stride"] = stride;
    context->saved_data["padding"] = padding;
    context->saved_data["widens"] = widens;
    if (!widens) return at::conv2d(x, weight, bias, {stride, stride}, {padding, padding});
    return at::conv2d(wide(x), wide(weight), wide(bias), {stride, stride}, {padding, padding}).to(x.scalar_type());
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto& data = context->saved_data;
    auto saved = context->get_saved_variables();
    auto kind = gradients[0].scalar_type();
    bool widens = data["widens"].toBool();
    auto widened = [&](const Tensor& t) { return widens ? wide(t) : t; };
    Tensor g = widened(gradients[0]);
    // Where an operand was not kept, only its size and layout matter.
    auto operand = [&](const Tensor& kept, const char* size, const char* layout) {
      auto format = static_cast<at::MemoryFormat>(data[layout].toInt());
      return kept.defined() ? widened(kept) : at::empty(data[size].toIntVector(), g.options(), format);
    };
    int64_t stride = data["stride"].toInt(), padding = data["padding"].toInt();
    std::array<bool, 3> mask{saved[1].defined(), saved[0].defined(), data["bias"].toBool()};
    auto found = at::convolution_backward(
        g, operand(saved[0], "x_size", "x_layout"), operand(saved[1], "weight_size", "weight_layout"),
        at::IntArrayRef({data["bias_size"].toInt()}), at::IntArrayRef({stride, stride}), at::IntArrayRef({padding, padding}),
        at::IntArrayRef({1, 1}), false, at::IntArrayRef({0, 0}), 1, mask);
    auto narrow = [&](const Tensor& t) { return t.defined() ? t.to(kind) : t; };
    return {narrow(std::get<0>(found)), narrow(std::get<1>(found)), narrow(std::get<2>(found)), Tensor(), Tensor(), Tensor()};
  }
};

// q [b, H, n, e], k and v [b, H, m, e] -> [b, H, n, e]
struct Attention : public Function<Attention> {
  static Tensor forward(AutogradContext* context, const Tensor& q, const Tensor& k, const Tensor& v, bool causal) {
    auto found = at::_scaled_dot_product_flash_attention_for_cpu(wide(q), wide(k), wide(v), 0.0, causal);
    Tensor y = std::get<0>(found).to(q.scalar_type());
    context->save_for_backward({q, k, v, y, std::get<1>(found)});
    context->saved_data["causal"] = causal;
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    auto kind = gradients[0].scalar_type();
    auto found = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        wide(gradients[0]), wide(saved[0]), wide(saved[1]), wide(saved[2]), wide(saved[3]), saved[4], 0.0,
        context->saved_data["causal"].toBool());
    return {std::get<0>(found).to(kind), std::get<1>(found).to(kind), std::get<2>(found).to(kind), Tensor()};
  }
};

template <typename Work>
Tensor* guarded(char** error, Work work) {
  return tastemaker::guarded<Tensor*>(error, nullptr, [&] { return new Tensor(work()); });
}

MaybeTensor maybe(const Tensor* tensor) { return tensor ? MaybeTensor(*tensor) : std::nullopt; }

}  // namespace

extern "C" {

Tensor* tastemaker_linear(const Tensor* x, const Tensor* weight, const Tensor* bias, char** error) {
  return guarded(error, [&] { return Linear::apply(*x, *weight, maybe(bias)); });
}

Tensor* tastemaker_conv2d(const Tensor* x, const Tensor* weight, const Tensor* bias, int64_t stride, int64_t padding,
                          bool widens, char** error) {
  return guarded(error, [&] { return Convolution::apply(*x, *weight, maybe(bias), stride, padding, widens); });
}

Tensor* tastemaker_attention(const Tensor* q, const Tensor* k, const Tensor* v, bool causal, char** error) {
  return guarded(error, [&] { return Attention::apply(*q, *k, *v, causal); });
}

void tastemaker_free(char* message) { std::free(message); }
}
