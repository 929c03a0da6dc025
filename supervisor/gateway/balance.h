// Which of several workers a request goes to: of two that are drawn the one with fewer requests in flight ("the power of two choices",
// Mitzenmacher 2001; Envoy's LEAST_REQUEST). Pure.
//
// Why not the least loaded of all: each gateway thread knows its own requests only, so what looks idle to one looks idle to all, and they would
// go there together; two drawn by chance spread that. It takes the same time however many workers there are, and the most that one has in
// flight stays within log log n of the mean. With two workers both are drawn, so it is the least loaded of all.
#pragma once

#include <cstddef>

#include "supervisor/base/random.h"

namespace bulkhead {

// An index below `count`, which is not 0. `load(i)`: what `i` has in flight.
template <typename Load>
size_t PickOfTwo(size_t count, Random& random, Load load) {
  const size_t first = random.Below(count);
  if (count == 1) return first;
  size_t second = random.Below(count - 1);
  if (second >= first) ++second;
  return load(second) < load(first) ? second : first;
}

}  // namespace bulkhead
