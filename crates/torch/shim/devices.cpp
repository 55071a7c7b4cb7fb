// Statistics of a device's allocator, and which kernels libtorch may take there.

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <cstdint>

#include "shim.h"

namespace {

constexpr size_t OF_ALL_POOLS = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

c10::DeviceAllocator* allocator(const at::Tensor& tensor) { return c10::getDeviceAllocator(tensor.device().type()); }

}  // namespace

extern "C" {

bool tastemaker_device_memory(const at::Tensor* tensor, int64_t* now, int64_t* peak, int64_t* reserved, char** error) {
  return tastemaker::guarded(error, false, [&] {
    auto stats = allocator(*tensor)->getDeviceStats(tensor->device().index());
    *now = stats.allocated_bytes[OF_ALL_POOLS].current;
    *peak = stats.allocated_bytes[OF_ALL_POOLS].peak;
    *reserved = stats.reserved_bytes[OF_ALL_POOLS].peak;
    return true;
  });
}

bool tastemaker_device_free(const at::Tensor* tensor, int64_t* free, char** error) {
  return tastemaker::guarded(error, false, [&] {
    *free = static_cast<int64_t>(allocator(*tensor)->getMemoryInfo(tensor->device().index()).first);
    return true;
  });
}

bool tastemaker_allow_kernels(bool tf32, bool cudnn_attention, char** error) {
  return tastemaker::guarded(error, false, [&] {
    at::globalContext().setAllowTF32CuBLAS(tf32);
    at::globalContext().setSDPUseCuDNN(cudnn_attention);
    return true;
  });
}

bool tastemaker_allowed_kernels(bool* tf32, bool* cudnn_attention, char** error) {
  return tastemaker::guarded(error, false, [&] {
    *tf32 = at::globalContext().allowTF32CuBLAS();
    *cudnn_attention = at::globalContext().userEnabledCuDNNSDP();
    return true;
  });
}

bool tastemaker_device_reset_peak(const at::Tensor* tensor, char** error) {
  return tastemaker::guarded(error, false, [&] {
    allocator(*tensor)->resetPeakStats(tensor->device().index());
    return true;
  });
}
}
