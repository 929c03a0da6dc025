// Entropy from the kernel, and a seedable generator where the simulation must replay.
#pragma once

#include <cstdint>
#include <string>

namespace bulkhead {

// Thread-compatible. Uniform numbers for jitter and balancing, not for secrets.
class Random {
 public:
  explicit Random(uint64_t seed);
  static Random FromEntropy();
  uint64_t Next();
  uint64_t Below(uint64_t bound);  // [0, bound), 0 when bound is 0
  double Unit();                   // [0, 1)

 private:
  uint64_t state_;
};

// `bytes` bytes from getrandom(2), as lower-case hex. For tokens, ids and keys.
std::string RandomHex(size_t bytes);
// A random UUID (version 4), RFC 9562.
std::string RandomUuid();

}  // namespace bulkhead
