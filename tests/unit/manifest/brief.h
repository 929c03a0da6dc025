// Findings as tests compare them.
#pragma once

#include <string>
#include <vector>

#include "supervisor/manifest/manifest.h"

namespace bulkhead {

// "/path CODE" of each.
inline std::vector<std::string> Brief(const std::vector<Finding>& findings) {
  std::vector<std::string> brief;
  for (const Finding& f : findings) brief.push_back(f.path + " " + f.code);
  return brief;
}

}  // namespace bulkhead
