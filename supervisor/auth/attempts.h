// Who has failed how often: free tries, then waits that double (limits.h, "Tries that fail"). In memory, of this node alone, bounded.
// Thread-safe.
#pragma once

#include <list>
#include <mutex>
#include <string>
#include <unordered_map>

#include "absl/status/status.h"
#include "supervisor/base/clock.h"

namespace bulkhead {

class Attempts {
 public:
  Attempts(const Clock& clock, int free) : clock_(clock), free_(free) {}

  // How long `key` has to wait before its next try; 0: it may try now.
  Millis Wait(const std::string& key) const;
  // Counts a try as failed before it is made, so that many at once are not all the first; a wait means that it may not be made.
  Millis Begin(const std::string& key);
  // It succeeded after all: the key is forgotten.
  void Succeeded(const std::string& key);
  // The one try that Begin() counted is taken back, for one that could not be made.
  void TakeBack(const std::string& key);

 private:
  struct Entry {
    std::string key;
    int failures = 0;
    Instant last{}, until{};
  };
  using Entries = std::list<Entry>;  // the one that failed last in front
  void DropOld(Instant now);

  const Clock& clock_;
  const int free_;
  mutable std::mutex mutex_;
  Entries entries_;
  std::unordered_map<std::string, Entries::iterator> by_key_;
};

// TOO_MANY_ATTEMPTS with the seconds, rounded up.
absl::Status TooManyAttempts(Millis wait);
// The host of "192.0.2.1:5000" or "[2001:db8::1]:5000". Of an IPv6 address its /64, which is what one customer has.
std::string AttemptAddress(std::string_view address);

}  // namespace bulkhead
