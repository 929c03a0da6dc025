// One GET of a small document, for key sets. Blocking.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "supervisor/base/clock.h"

namespace bulkhead {

struct HttpGet {
  std::string url;
  bool plain = false;      // http is allowed; else https alone, also after a redirect
  size_t max_bytes = 0;    // beyond: an error
  Millis timeout{0};       // for everything, connecting included
};
// The body of a 200. UNAVAILABLE with a sentence otherwise; `stopped` is asked now and then, and true breaks it off.
absl::StatusOr<std::string> Fetch(const HttpGet& get, const std::function<bool()>& stopped);

}  // namespace bulkhead
