// Calls that came with an idempotency key (migrations/0008_idempotency.sql): the first is done, the same again is answered with what was
// the answer then. Blocking; thread-safe.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "supervisor/base/clock.h"
#include "supervisor/store/database.h"
#include "supervisor/store/secret_box.h"

namespace bulkhead {

class IdempotentCalls {
 public:
  static constexpr size_t kMaxKey = 255;
  static constexpr Millis kMemory{24 * 3'600'000};  // how long an answer is kept
  static constexpr Millis kLease{900'000};          // after this a call without an answer is taken for lost, and may be done again
  static constexpr size_t kMaxAnswer = 1 << 20;     // bytes of an answer that is kept; a larger one is not, and the call may be done again

  struct Answer {
    int code = 0;  // gRPC's
    std::string bytes;
  };

  IdempotentCalls(Database& database, SecretBox& secrets, std::string node)
      : database_(database), secrets_(secrets), node_(std::move(node)) {}

  // nullopt: the call is the first and has to be done, and Finish or Forget has to follow. INVALID_ARGUMENT for a key that is none,
  // IDEMPOTENCY_KEY_REUSED for another request under the same key, IDEMPOTENCY_KEY_IN_USE while the first is under way.
  absl::StatusOr<std::optional<Answer>> Begin(const std::string& subject, const std::string& key, const std::string& method,
                                              const std::string& request);
  absl::Status Finish(const std::string& subject, const std::string& key, const Answer& answer);
  // Nothing was done: the next one with this key is the first.
  absl::Status Forget(const std::string& subject, const std::string& key);
  // Seals what is kept with the key that seals now.
  absl::Status Reseal();

 private:
  Database& database_;
  SecretBox& secrets_;
  const std::string node_;
};

// INVALID_ARGUMENT for what is no key: 1 to 255 visible ASCII characters.
absl::Status CheckIdempotencyKey(const std::string& key);

}  // namespace bulkhead
