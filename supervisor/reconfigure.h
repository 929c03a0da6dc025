// What a configuration that is read again would change: which keys can change while the supervisor runs, and which only with a restart.
// Pure; main.cc reads, daemon.cc applies.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/config.h"

namespace bulkhead {

struct ConfigDelta {
  struct Changed {
    std::string key;            // as in the file: "log.level"
    std::string before, after;  // for people; without secrets
  };
  std::vector<Changed> changed;  // in the order of the keys in `serve --help`, then flags, clients, notifications and auth; empty: nothing
  bool log = false, flags = false, jwt = false, extensions = false, clients = false, notifications = false;  // what has to be told
};

// The keys that differ between the configuration in force and `next`, each the outcome of all its layers: a key that an option or a
// variable sets does not differ, whatever the file says. CONFIG_INVALID when one of them can't change without a restart; the details name
// every such key with its place in the file.
absl::StatusOr<ConfigDelta> CompareConfigs(const Config& now, const Config& next);

}  // namespace bulkhead
