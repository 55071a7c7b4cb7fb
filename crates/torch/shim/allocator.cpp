// Where tensors on the host lie.
//
// libtorch asks the C library for aligned blocks, and before a block glibc wants room to align within: what was freed is never large
// enough for a block of its own size, and a training step, which asks for the same sizes again and again, spreads over a quarter more
// memory than it uses. Here plain blocks are asked for, a little larger, and aligned by hand: each fits where its like has been.

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <cstdlib>

#ifdef __GLIBC__
namespace {

// What libtorch's own allocator aligns to.
constexpr uintptr_t ALIGNMENT = 64;

// Before each block stands where the C library's begins.
void give_back(void* data) {
  if (data) std::free(static_cast<void**>(data)[-1]);
}

struct HostAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    void* data = nullptr;
    if (n > 0) {
      size_t more = ALIGNMENT - 1 + sizeof(void*);
      void* start = n + more > n ? std::malloc(n + more) : nullptr;
      TORCH_CHECK(start, "can't allocate memory: ", n, " bytes");
      data = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(start) + more) & ~(ALIGNMENT - 1));
      static_cast<void**>(data)[-1] = start;
    }
    return {data, data, &give_back, at::Device(at::DeviceType::CPU)};
  }

  at::DeleterFnPtr raw_deleter() const override { return &give_back; }

  void copy_data(void* to, const void* from, size_t n) const override { default_copy_data(to, from, n); }
};

HostAllocator host_allocator;

// Before `main`: no tensor is there yet, and those of other allocators would know how to end.
[[maybe_unused]] const bool is_set = (c10::SetCPUAllocator(&host_allocator), true);

}  // namespace
#endif
