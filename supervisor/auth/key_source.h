// The keys whose JSON Web Tokens are taken: those of the configuration, and those behind a JWKS URL, fetched again and again on a thread of
// its own. The last good set is kept when a fetch fails. Thread-safe.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/auth/jwk.h"
#include "supervisor/auth/jwt_settings.h"

namespace bulkhead {

// The keys of files, read at the start and before root is dropped. CONFIG_INVALID names the key and what is wrong with it.
absl::StatusOr<std::vector<VerificationKey>> ReadKeyFiles(const JwtSettings& settings);
// A sentence when `url` is none that keys may be fetched from: https, or http to this very host.
std::string JwksUrlFault(const std::string& url);

class KeySource {
 public:
  // `changed` is called after each fetch that brought other keys, on the thread of this object.
  KeySource(const Clock& clock, std::string jwks_url, Millis refresh, std::vector<VerificationKey> configured, std::function<void()> changed);
  KeySource(const KeySource&) = delete;
  ~KeySource();  // Stop()

  // Begins to fetch, when there is a URL. Stop() breaks a fetch off, answers everybody who waits, and joins.
  void Start();
  void Stop();
  // From now on these. What was fetched stays while the URL does; another one is fetched at once.
  void Configure(std::string jwks_url, Millis refresh, std::vector<VerificationKey> configured);

  // Of configured and fetched keys; a configured one wins over a fetched one with its id.
  std::shared_ptr<const KeySet> Current() const;
  // Somebody met a `kid` that is not known: fetches now, unless the last fetch began less than limits::kJwksPause ago. `then` is called once
  // the fetch has ended, or at once where there is none; from this thread or from another.
  void Refresh(std::function<void()> then);

 private:
  void Run();
  void FetchOnce();
  void RunWhereWanted();  // under mutex_
  bool Merge();           // under mutex_; whether that changed anything

  const Clock& clock_;
  const std::function<void()> changed_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::string url_;
  Millis refresh_;
  std::vector<VerificationKey> configured_, fetched_keys_;
  std::shared_ptr<const KeySet> current_;
  std::vector<std::function<void()>> waiting_;
  Instant last_begun_{};
  bool fetched_ = false;   // at least once with success
  bool fetching_ = false, wanted_ = false, running_ = false, stopping_ = false, started_ = false;
  std::thread thread_;
};

}  // namespace bulkhead
