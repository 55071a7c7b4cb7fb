// A part of a network whose graph is built when its gradient is asked for, and not before.
//
// Two nodes stand for the part. `Arrival` takes the gradient of the part's output, on whatever device that is, and lays it
// aside. `Segment` hangs on a token on the CPU, so that the engine runs it on the thread that asked for the gradient and
// never on a thread of a device: the part is Rust code that belongs to one thread. It runs the part again with its inputs
// hanging on a `Sink`, lets the engine run through that graph, and hands on what arrived in the sink.
//
// The sink takes gradients as they come. Leaves would rearrange them in memory, and the kernels behind would round
// otherwise than those of the plain graph.

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <cstdlib>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "shim.h"

namespace {

using at::Tensor;
using torch::autograd::Edge;
using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

// The part, kept by Rust. `run` takes over the inputs and gives an output, or a message made by `strdup`.
struct Part {
  using Run = char* (*)(void* data, Tensor* const* inputs, size_t n, Tensor** output);
  using Drop = void (*)(void* data);

  Part(void* data, Run run, Drop drop) : data(data), run(run), drop(drop) {}
  Part(const Part&) = delete;
  ~Part() { drop(data); }

  Tensor operator()(const variable_list& inputs) const {
    std::vector<Tensor*> given;
    for (const Tensor& input : inputs) given.push_back(new Tensor(input));
    Tensor* output = nullptr;
    if (char* message = run(data, given.data(), given.size(), &output)) {
      std::string words(message);
      std::free(message);
      throw std::runtime_error(words);
    }
    std::unique_ptr<Tensor> held(output);
    return *held;
  }

  void* data;
  Run run;
  Drop drop;
};

// A gradient on its way from one node to the other.
struct Aside {
  void put(Tensor arrived) {
    std::lock_guard<std::mutex> lock(mutex);
    gradient = std::move(arrived);
  }

  Tensor take() {
    std::lock_guard<std::mutex> lock(mutex);
    TORCH_CHECK(gradient.defined(), "two backward passes run through one recomputed part at a time");
    return std::exchange(gradient, Tensor());
  }

  std::mutex mutex;
  Tensor gradient;
};

struct Arrival : public Node {
  explicit Arrival(std::shared_ptr<Aside> aside) : aside(std::move(aside)) {}

  variable_list apply(variable_list&& gradients) override {
    if (!gradients[0].defined()) return {Tensor()};
    aside->put(std::move(gradients[0]));
    return {at::zeros({}, at::kFloat)};
  }

  std::shared_ptr<Aside> aside;
};

struct Sink : public Node {
  variable_list apply(variable_list&& gradients) override {
    found = std::move(gradients);
    return {};
  }

  variable_list found;
};

struct Segment : public Node {
  Segment(std::shared_ptr<Aside> aside, std::unique_ptr<Part> part) : aside(std::move(aside)), part(std::move(part)) {}

  variable_list apply(variable_list&& token) override {
    TORCH_CHECK(!at::GradMode::is_enabled(), "a part recomputed in the backward pass has no second derivative");
    TORCH_CHECK(
        torch::autograd::Engine::get_default_engine().is_checkpoint_valid(),
        "a part recomputed in the backward pass needs gradients of all leaves, not of chosen tensors");
    variable_list gradients(inputs.size());
    if (!token[0].defined()) return gradients;
    Tensor gradient = aside->take();

    auto sink = std::shared_ptr<Sink>(new Sink(), torch::autograd::deleteNode);
    variable_list again;
    std::vector<size_t> trainable;
    for (size_t i = 0; i < inputs.size(); i++) {
      Tensor input = inputs[i].unpack().variable_data();
      if (next_edge(i).is_valid()) {
        torch::autograd::set_history(input, sink);
        trainable.push_back(i);
      }
      again.push_back(std::move(input));
    }
    {
      at::AutoGradMode recording(true);
      Tensor output = (*part)(again);
      if (!output.requires_grad()) return gradients;
      torch::autograd::backward({output}, {gradient});
    }
    // Empty where the output does not hang on any input.
    for (size_t i = 0; i < sink->found.size(); i++) gradients[trainable[i]] = std::move(sink->found[i]);
    return gradients;
  }

  void release_variables() override {
    for (SavedVariable& input : inputs) input.reset_data();
  }

  std::vector<SavedVariable> inputs;
  std::shared_ptr<Aside> aside;
  std::unique_ptr<Part> part;
};

}  // namespace

extern "C" {

bool tastemaker_records() { return at::GradMode::is_enabled(); }

// `output` is what the part gave for the inputs, without a graph. The part is dropped also when this fails.
Tensor* tastemaker_segment(const Tensor* const* inputs, size_t n, const Tensor* output, void* data, Part::Run run,
                           Part::Drop drop, char** error) {
  auto part = std::make_unique<Part>(data, run, drop);
  return tastemaker::guarded<Tensor*>(error, nullptr, [&] {
    auto aside = std::make_shared<Aside>();
    auto segment = std::shared_ptr<Segment>(new Segment(aside, std::move(part)), torch::autograd::deleteNode);
    for (size_t i = 0; i < n; i++) {
      segment->inputs.emplace_back(*inputs[i], false);
      segment->add_next_edge(torch::autograd::impl::gradient_edge(*inputs[i]));
    }
    segment->add_input_metadata(at::zeros({}, at::kFloat));
    auto arrival = std::shared_ptr<Arrival>(new Arrival(aside), torch::autograd::deleteNode);
    arrival->add_next_edge(Edge(segment, 0));
    Tensor result = output->variable_data();
    torch::autograd::set_history(result, arrival);
    return new Tensor(result);
  });
}
}
