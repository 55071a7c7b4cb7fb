// Groups of processes that sum, spread and gather tensors over TCP, by libtorch's c10d and Gloo.
//
// The first operation that fails ends the group: its connections close, so that the other ranks fail as well instead of
// waiting for this one. While a rank waits it asks whether another is known to be lost.

#define USE_C10D_GLOO
#include <ATen/ATen.h>
#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <chrono>
#include <deque>
#include <string>
#include <vector>

#include "shim.h"

namespace {

using at::Tensor;

// Small tensors travel together; large ones one by one, so that little memory is held twice.
constexpr int64_t BUCKET_BYTES = 16 << 20;
// Sums under way at once: one is on the wire while the next is packed.
constexpr size_t IN_FLIGHT = 2;

// How often a rank that waits asks whether another is lost.
constexpr std::chrono::milliseconds GLANCE(500);

struct Group {
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
  // How long an operation may take.
  std::chrono::milliseconds limit{};
  // Whether a rank is known to be lost; null before the ranks have met.
  bool (*is_lost)(const void*) = nullptr;
  const void* watch = nullptr;
};

void wait(Group& group, c10d::Work& work) {
  for (;;) {
    try {
      work.wait(GLANCE);
      return;
    } catch (...) {
      // What failed says so again, and what ended meanwhile did not fail.
      if (work.isCompleted()) {
        work.wait();
        return;
      }
    }
    if (group.is_lost && group.is_lost(group.watch)) {
      // Taking the group apart would wait for the lost one.
      group.gloo.release();
      throw std::runtime_error("a rank is lost");
    }
  }
}

struct Store {
  c10::intrusive_ptr<c10d::Store> store;
};

// Tensors summed as one flat one.
struct Bucket {
  std::vector<Tensor> tensors;
  Tensor flat;
  c10::intrusive_ptr<c10d::Work> work;
};

void start(Group& group, Bucket& bucket) {
  // A contiguous tensor alone is its own flat form.
  if (bucket.tensors.size() == 1) {
    bucket.flat = bucket.tensors[0].contiguous();
  } else {
    std::vector<Tensor> rows;
    for (const Tensor& tensor : bucket.tensors) rows.push_back(tensor.reshape({-1}));
    bucket.flat = at::cat(rows);
  }
  std::vector<Tensor> buffers{bucket.flat};
  c10d::AllreduceOptions options;
  options.timeout = group.limit;
  bucket.work = group.gloo->allreduce(buffers, options);
}

void finish(Group& group, Bucket& bucket) {
  wait(group, *bucket.work);
  if (bucket.tensors.size() == 1) {
    if (!bucket.flat.is_same(bucket.tensors[0])) bucket.tensors[0].copy_(bucket.flat);
    return;
  }
  int64_t from = 0;
  for (Tensor& tensor : bucket.tensors) {
    tensor.copy_(bucket.flat.narrow(0, from, tensor.numel()).view(tensor.sizes()));
    from += tensor.numel();
  }
}

std::vector<Bucket> buckets(Tensor* const* tensors, size_t n) {
  std::vector<Bucket> made;
  int64_t bytes = 0;
  for (size_t i = 0; i < n; i++) {
    Tensor tensor = tensors[i]->detach();
    int64_t size = tensor.nbytes();
    bool joins = !made.empty() && bytes + size <= BUCKET_BYTES &&
                 made.back().tensors[0].scalar_type() == tensor.scalar_type();
    if (!joins) {
      made.emplace_back();
      bytes = 0;
    }
    bytes += size;
    made.back().tensors.push_back(std::move(tensor));
  }
  return made;
}

// What c10d has to say arrives as an error; its warnings on the way, with stack traces, are for those who ask for them with
// TORCH_CPP_LOG_LEVEL.
void be_quiet() {
  if (FLAGS_caffe2_log_level == c10::GLOG_WARNING) FLAGS_caffe2_log_level = c10::GLOG_FATAL;
}

// Runs `work` on the living group, and ends the group if that fails.
template <typename Work>
bool together(Group* group, char** error, Work work) {
  at::NoGradGuard no_grad;
  bool done = tastemaker::guarded(error, false, [&] {
    if (!group->gloo) throw std::runtime_error("the group has ended: an operation before this one failed");
    work();
    return true;
  });
  if (!done) group->gloo.reset();
  return done;
}

}  // namespace

extern "C" {

Group* tastemaker_group_join(int rank, int world_size, const char* address, uint16_t port, bool hosts, const char* name,
                             const char* interface, int64_t timeout_ms, char** error) {
  return tastemaker::guarded<Group*>(error, nullptr, [&] {
    be_quiet();
    auto timeout = std::chrono::milliseconds(timeout_ms);
    c10d::TCPStoreOptions store;
    store.port = port;
    store.isServer = hosts;
    store.numWorkers = world_size;
    store.timeout = timeout;
    store.multiTenant = true;
    auto group = std::make_unique<Group>();
    group->limit = timeout;
    group->store = c10::make_intrusive<c10d::PrefixStore>(name, c10::make_intrusive<c10d::TCPStore>(address, store));
    auto options = c10d::ProcessGroupGloo::Options::create(timeout);
    options->devices.push_back(interface ? c10d::ProcessGroupGloo::createDeviceForInterface(interface)
                                         : c10d::ProcessGroupGloo::createDefaultDevice());
    group->gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(group->store, rank, world_size, options);
    // Whoever hosts the store may leave early: not before all have met.
    group->gloo->barrier()->wait();
    return group.release();
  });
}

void tastemaker_group_leave(Group* group) { delete group; }

// Has `is_lost(watch)` asked whenever this rank waits.
void tastemaker_group_watch(Group* group, bool (*is_lost)(const void*), const void* watch) {
  group->is_lost = is_lost;
  group->watch = watch;
}

// How long an operation may take from now on.
void tastemaker_group_limit(Group* group, int64_t limit_ms) { group->limit = std::chrono::milliseconds(limit_ms); }

// A connection of its own to the group's store, for one thread.
Store* tastemaker_store_open(Group* group, char** error) {
  return tastemaker::guarded<Store*>(error, nullptr, [&] { return new Store{group->store->clone()}; });
}

void tastemaker_store_close(Store* store) { delete store; }

bool tastemaker_store_set(Store* store, const char* key, const char* value, char** error) {
  return tastemaker::guarded(error, false, [&] {
    store->store->set(key, std::string(value));
    return true;
  });
}

// What stands under a key, to be freed with `tastemaker_free`; null where nothing does.
char* tastemaker_store_get(Store* store, const char* key, char** error) {
  return tastemaker::guarded<char*>(error, nullptr, [&]() -> char* {
    if (!store->store->check({key})) return nullptr;
    return strdup(store->store->get_to_str(key).c_str());
  });
}

bool tastemaker_group_sum(Group* group, Tensor* const* tensors, size_t n, char** error) {
  return together(group, error, [&] {
    std::deque<Bucket> under_way;
    for (Bucket& bucket : buckets(tensors, n)) {
      if (under_way.size() == IN_FLIGHT) {
        finish(*group, under_way.front());
        under_way.pop_front();
      }
      start(*group, bucket);
      under_way.push_back(std::move(bucket));
    }
    for (Bucket& bucket : under_way) finish(*group, bucket);
  });
}

bool tastemaker_group_broadcast(Group* group, Tensor* tensor, int64_t root, char** error) {
  return together(group, error, [&] {
    Tensor shared = tensor->detach();
    std::vector<Tensor> buffers{shared.contiguous()};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    options.timeout = group->limit;
    wait(*group, *group->gloo->broadcast(buffers, options));
    if (!buffers[0].is_same(shared)) shared.copy_(buffers[0]);
  });
}

// Fills `outputs`, one tensor for each rank, contiguous and shaped as `input`.
bool tastemaker_group_gather(Group* group, Tensor* const* outputs, size_t n, const Tensor* input, char** error) {
  return together(group, error, [&] {
    std::vector<std::vector<Tensor>> found(1);
    for (size_t i = 0; i < n; i++) found[0].push_back(*outputs[i]);
    std::vector<Tensor> given{input->detach().contiguous()};
    c10d::AllgatherOptions options;
    options.timeout = group->limit;
    wait(*group, *group->gloo->allgather(found, given, options));
  });
}

bool tastemaker_group_barrier(Group* group, char** error) {
  return together(group, error, [&] {
    c10d::BarrierOptions options;
    options.timeout = group->limit;
    wait(*group, *group->gloo->barrier(options));
  });
}
}
