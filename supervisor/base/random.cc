#include "supervisor/base/random.h"

#include <sys/random.h>

#include "supervisor/base/log.h"

namespace bulkhead {
namespace {

void Entropy(void* out, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t n = getrandom(static_cast<char*>(out) + done, size - done, 0);
    BULKHEAD_CHECK(n > 0);
    done += static_cast<size_t>(n);
  }
}

}  // namespace

Random::Random(uint64_t seed) : state_(seed) {}

Random Random::FromEntropy() {
  uint64_t seed;
  Entropy(&seed, sizeof seed);
  return Random(seed);
}

// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
uint64_t Random::Next() {
  uint64_t z = (state_ += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

uint64_t Random::Below(uint64_t bound) {
  return bound == 0 ? 0 : static_cast<uint64_t>((static_cast<unsigned __int128>(Next()) * bound) >> 64);
}

double Random::Unit() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }

std::string RandomHex(size_t bytes) {
  std::string raw(bytes, '\0');
  Entropy(raw.data(), bytes);
  std::string hex;
  for (unsigned char c : raw) {
    hex += "0123456789abcdef"[c >> 4];
    hex += "0123456789abcdef"[c & 15];
  }
  return hex;
}

std::string RandomUuid() {
  std::string hex = RandomHex(16);
  hex[12] = '4';
  hex[16] = "89ab"[(hex[16] <= '9' ? hex[16] - '0' : hex[16] - 'a' + 10) & 3];
  return hex.substr(0, 8) + "-" + hex.substr(8, 4) + "-" + hex.substr(12, 4) + "-" + hex.substr(16, 4) + "-" + hex.substr(20);
}

}  // namespace bulkhead
