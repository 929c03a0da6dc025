// Runs a fuzz target on its seeds and on so many mutations of them: NAME [--runs=N] [--seed=N] [FILE…]. Files are tried as they are,
// to replay what libFuzzer has found.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include "supervisor/base/random.h"
#include "tests/fuzz/fuzz.h"

namespace {

using bulkhead::Random;

constexpr size_t kMaxInput = 64 * 1024;
constexpr size_t kMaxMutations = 6;  // of one input

void Mutate(std::string& input, const std::vector<std::string>& seeds, Random& random) {
  auto at = [&] { return static_cast<size_t>(random.Below(input.size() + 1)); };
  switch (random.Below(8)) {
    case 0:  // another bit
      if (!input.empty()) input[at() % input.size()] ^= static_cast<char>(1 << random.Below(8));
      break;
    case 1:  // another byte, often one of those that matter
      if (!input.empty()) {
        static constexpr char kBytes[] = {0, 1, '\n', '\r', ' ', ':', ';', '0', '\x7f', '\x80', '\xff'};
        input[at() % input.size()] = kBytes[random.Below(sizeof kBytes)];
      }
      break;
    case 2: input.insert(at(), 1 + random.Below(4), static_cast<char>(random.Below(256))); break;
    case 3: input.erase(at(), random.Below(16)); break;
    case 4: input.resize(at()); break;  // cut off
    case 5: {                           // a part of it again
      size_t from = at();
      input.insert(at(), input.substr(from, random.Below(64)));
      break;
    }
    case 6: input.insert(at(), seeds[random.Below(seeds.size())]); break;
    case 7: {  // a number of four bytes
      uint32_t number = static_cast<uint32_t>(random.Next() >> random.Below(64));
      size_t to = at();
      if (to + sizeof number <= input.size()) memcpy(input.data() + to, &number, sizeof number);
      break;
    }
  }
  if (input.size() > kMaxInput) input.resize(kMaxInput);
}

void Try(const std::string& input) { LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size()); }

}  // namespace

int main(int argc, char** argv) {
  uint64_t runs = 20'000, seed = 1;
  bool files = false;
  for (int i = 1; i < argc; ++i) {
    if (strncmp(argv[i], "--runs=", 7) == 0) {
      runs = strtoull(argv[i] + 7, nullptr, 10);
    } else if (strncmp(argv[i], "--seed=", 7) == 0) {
      seed = strtoull(argv[i] + 7, nullptr, 10);
    } else {
      std::ifstream file(argv[i], std::ios::binary);
      Try(std::string(std::istreambuf_iterator<char>(file), {}));
      files = true;
    }
  }
  if (files) return 0;
  const std::vector<std::string> seeds = FuzzSeeds();
  for (const std::string& input : seeds) Try(input);
  Random random(seed);
  for (uint64_t run = 0; run < runs; ++run) {
    std::string input = seeds[random.Below(seeds.size())];
    for (size_t n = 1 + random.Below(kMaxMutations); n > 0; --n) Mutate(input, seeds, random);
    Try(input);
  }
  printf("%llu inputs, seed %llu\n", static_cast<unsigned long long>(runs + seeds.size()), static_cast<unsigned long long>(seed));
}
