// Gradients of leaves: when one has been added to, and taking them away.

#include <ATen/ATen.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <memory>

#include "shim.h"

namespace {

// Tells Rust, on whatever thread the engine computes on, that the gradient of a leaf has grown.
struct Grown : public torch::autograd::PostAccumulateGradHook {
  using Call = void (*)(const void* context, size_t leaf);
  using Drop = void (*)(const void* context);

  Grown(const void* context, size_t leaf, Call call, Drop drop) : context(context), leaf(leaf), call(call), drop(drop) {}
  Grown(const Grown&) = delete;
  ~Grown() override { drop(context); }

  void operator()(const at::Tensor&) override { call(context, leaf); }

  const void* context;
  size_t leaf;
  Call call;
  Drop drop;
};

}  // namespace

extern "C" {

// Calls `call(context, number)` whenever the gradient of a leaf has grown, and at last `drop(context)`, also when this fails.
bool tastemaker_gradient_watch(const at::Tensor* leaf, const void* context, size_t number, Grown::Call call,
                               Grown::Drop drop, char** error) {
  auto hook = std::make_unique<Grown>(context, number, call, drop);
  return tastemaker::guarded(error, false, [&] {
    torch::autograd::impl::set_post_acc_grad_hooks(*leaf, std::move(hook));
    return true;
  });
}

bool tastemaker_gradient_unwatch(const at::Tensor* leaf, char** error) {
  return tastemaker::guarded(error, false, [&] {
    torch::autograd::impl::set_post_acc_grad_hooks(*leaf, nullptr);
    return true;
  });
}

// Gives a leaf that has none a gradient of zeros.
bool tastemaker_gradient_fill(at::Tensor* leaf, char** error) {
  return tastemaker::guarded(error, false, [&] {
    if (!leaf->grad().defined()) leaf->mutable_grad() = at::zeros_like(leaf->detach());
    return true;
  });
}

bool tastemaker_gradient_take_away(at::Tensor* leaf, char** error) {
  return tastemaker::guarded(error, false, [&] {
    leaf->mutable_grad().reset();
    return true;
  });
}

// The numbers of a tensor in the order in which they lie in memory, as a view.
at::Tensor* tastemaker_flat(const at::Tensor* tensor, char** error) {
  return tastemaker::guarded<at::Tensor*>(error, nullptr, [&] {
    at::Tensor plain = tensor->detach();
    TORCH_CHECK(plain.is_non_overlapping_and_dense(), "a tensor does not lie in one piece of memory");
    return new at::Tensor(plain.as_strided({plain.numel()}, {1}, plain.storage_offset()));
  });
}
}
