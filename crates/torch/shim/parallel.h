// Loops over several threads: those of libtorch, whose own `at::parallel_for` is a header that runs on one thread unless it is
// compiled with the OpenMP that libtorch was compiled with.
#pragma once

#include <ATen/ATen.h>
#include <ATen/native/TensorIterator.h>

#include <cstdint>

namespace tastemaker {

// Calls `work(from, to)` for parts of 0..n that together are all of it, each of at least `grain` but the last.
template <typename Work>
void in_parallel(int64_t n, int64_t grain, const Work& work) {
  if (n == 0) return;
  at::Tensor numbers = at::arange(n, at::kLong);
  auto loop = [&](char** data, const int64_t* strides, int64_t inner, int64_t outer) {
    for (int64_t i = 0; i < outer; i++) {
      int64_t from = *reinterpret_cast<int64_t*>(data[0] + i * strides[1]);
      work(from, from + inner);
    }
  };
  at::TensorIterator::nullary_op(numbers).for_each(loop, grain);
}

}  // namespace tastemaker
