// For whom a flag with a percentage is on, as host.proto says: supervisor and SDK have code of their own for it and must agree. The numbers were
// made by a third program (Python) from the words of host.proto.
#pragma once

#include <string>
#include <vector>

namespace bulkhead {

struct FlagVector {
  std::string name, identity;
  int bucket;  // h mod 100: on from the percentage above it
};

inline std::vector<FlagVector> FlagVectors() {
  return {
      {"new-pricing", "ann", 26},
      {"new-pricing", "bob", 85},
      {"NEW_PRICING", "bob", 85},
      {"new.pricing", "bob", 85},
      {"new-pricing", "", 47},
      {"new-pricing", "user-1", 88},
      {"new-pricing", "user-2", 52},
      {"new-pricing", "user-3", 1},
      {"new-dashboard", "ann", 59},
      {"new-dashboard", "bob", 13},
      {"x", "zoë", 14},
      {"x", "日本", 41},
      {"x", "a/b", 32},
      {"beta.search-v2", "0b51a2d1-6f7c-4a39-9d4e-1f0f6a1f2a77", 51},
      {"beta.search-v2", std::string(128, 'x'), 67},
  };
}

}  // namespace bulkhead
