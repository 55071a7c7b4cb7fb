// The whole shim as one unit: the headers of libtorch are most of what the compiler reads, and it reads them once.
// `distributed.cpp` comes first, because it says which back-end those headers are for.
#include "distributed.cpp"

#include "allocator.cpp"
#include "devices.cpp"
#include "gradients.cpp"
#include "norm.cpp"
#include "optimizers.cpp"
#include "products.cpp"
#include "quantized.cpp"
#include "recompute.cpp"
#include "streams.cpp"
