#include "supervisor/auth/attempts.h"

#include <arpa/inet.h>

#include <algorithm>

#include "supervisor/base/limits.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

Millis PauseAfter(int beyond_free) {
  constexpr int kDoublings = 20;  // far more than it takes to reach the last pause
  return std::min(limits::kAttemptPause * (int64_t{1} << std::min(beyond_free - 1, kDoublings)), limits::kMaxAttemptPause);
}

}  // namespace

void Attempts::DropOld(Instant now) {
  while (!entries_.empty()) {
    const Entry& oldest = entries_.back();
    const bool forgotten = now >= std::max(oldest.last, oldest.until) + limits::kAttemptMemory;
    if (!forgotten && entries_.size() < limits::kMaxAttemptKeys) return;
    by_key_.erase(oldest.key);
    entries_.pop_back();
  }
}

Millis Attempts::Wait(const std::string& key) const {
  std::lock_guard lock(mutex_);
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return Millis(0);
  return std::max(std::chrono::ceil<Millis>(found->second->until - clock_.Now()), Millis(0));
}

Millis Attempts::Begin(const std::string& key) {
  std::lock_guard lock(mutex_);
  const Instant now = clock_.Now();
  auto found = by_key_.find(key);
  if (found != by_key_.end() && now >= std::max(found->second->last, found->second->until) + limits::kAttemptMemory) {
    entries_.erase(found->second);
    by_key_.erase(found);
    found = by_key_.end();
  }
  if (found == by_key_.end()) {
    DropOld(now);
    entries_.push_front({key});
    found = by_key_.emplace(key, entries_.begin()).first;
  }
  Entry& entry = *found->second;
  if (now < entry.until) return std::chrono::ceil<Millis>(entry.until - now);
  entries_.splice(entries_.begin(), entries_, found->second);
  entry.last = now;
  ++entry.failures;
  if (entry.failures >= free_) entry.until = now + PauseAfter(entry.failures - free_ + 1);
  return Millis(0);
}

void Attempts::Succeeded(const std::string& key) {
  std::lock_guard lock(mutex_);
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return;
  entries_.erase(found->second);
  by_key_.erase(found);
}

void Attempts::TakeBack(const std::string& key) {
  std::lock_guard lock(mutex_);
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return;
  Entry& entry = *found->second;
  entry.until = Instant{};
  if (--entry.failures > 0) return;
  entries_.erase(found->second);
  by_key_.erase(found);
}

absl::Status TooManyAttempts(Millis wait) {
  const int seconds = static_cast<int>(std::max<int64_t>(std::chrono::ceil<std::chrono::seconds>(wait).count(), 1));
  return WithRetryAfter(Error("TOO_MANY_ATTEMPTS", "Too many tries have failed. Try again in " + std::to_string(seconds) + " s."), seconds);
}

std::string AttemptAddress(std::string_view address) {
  if (!address.starts_with('[')) {
    // An IPv6 address without brackets has several colons and no port.
    const size_t colon = address.find(':');
    if (colon == std::string_view::npos || address.find(':', colon + 1) == std::string_view::npos) return std::string(address.substr(0, colon));
  } else {
    address = address.substr(1, address.find(']') - 1);
  }
  in6_addr v6{};
  const std::string text(address.substr(0, address.find('%')));
  if (inet_pton(AF_INET6, text.c_str(), &v6) != 1) return text;
  std::fill(v6.s6_addr + 8, v6.s6_addr + 16, uint8_t{0});
  char prefix[INET6_ADDRSTRLEN] = "";
  inet_ntop(AF_INET6, &v6, prefix, sizeof prefix);
  return std::string(prefix) + "/64";
}

}  // namespace bulkhead
