#include "supervisor/store/idempotency.h"

#include <algorithm>

#include "supervisor/base/status.h"
#include "supervisor/store/digest.h"

namespace bulkhead {
namespace {

std::string Seconds(Millis time) { return std::to_string(time.count() / 1000) + " seconds"; }
std::string Purpose(const std::string& subject, const std::string& key) { return "answer/" + subject + "/" + key; }

absl::Status CheckKey(const std::string& key) {
  const bool visible = std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c < 127; });
  if (!key.empty() && key.size() <= IdempotentCalls::kMaxKey && visible) return absl::OkStatus();
  return Error("INVALID_ARGUMENT", "an idempotency key is 1 to 255 visible ASCII characters, such as a UUID");
}

}  // namespace

absl::StatusOr<std::optional<IdempotentCalls::Answer>> IdempotentCalls::Begin(const std::string& subject, const std::string& key,
                                                                             const std::string& method, const std::string& request) {
  RETURN_IF_ERROR(CheckKey(key));
  const std::string digest = DigestHex(method + "\n" + request);
  std::optional<Answer> answer;
  RETURN_IF_ERROR(database_.Transaction([&](Connection& c) -> absl::Status {
    answer.reset();
    RETURN_IF_ERROR(c.Run("DELETE FROM bulkhead_internal.idempotent_calls WHERE started_at < now() - $1::interval", {Seconds(kMemory)}).status());
    // Taken over: a call whose node never answered.
    ASSIGN_OR_RETURN(const Rows mine,
                     c.Run("INSERT INTO bulkhead_internal.idempotent_calls AS i (subject, key, method, request, node) VALUES ($1, $2, $3, $4, $5) "
                           "ON CONFLICT (subject, key) DO UPDATE SET started_at = now(), node = excluded.node "
                           "WHERE i.status IS NULL AND i.request = excluded.request AND i.started_at < now() - $6::interval RETURNING key",
                           {subject, key, method, digest, node_, Seconds(kLease)}));
    if (mine.size() == 1) return absl::OkStatus();
    ASSIGN_OR_RETURN(const Rows known, c.Run("SELECT request, status, answer FROM bulkhead_internal.idempotent_calls WHERE subject = $1 AND key = $2",
                                             {subject, key}));
    if (known.size() == 0 || (known.Text(0, "request") == digest && known.Null(0, "status"))) {
      return Error("IDEMPOTENCY_KEY_IN_USE", "the first call with this idempotency key is still under way; ask again in a moment");
    }
    if (known.Text(0, "request") != digest) {
      return Error("IDEMPOTENCY_KEY_REUSED", "this idempotency key belongs to another request; take a new key for each thing to be done");
    }
    ASSIGN_OR_RETURN(std::string bytes, secrets_.Open(known.Text(0, "answer"), Purpose(subject, key)));
    answer = Answer{static_cast<int>(known.Int(0, "status")), std::move(bytes)};
    return absl::OkStatus();
  }));
  return answer;
}

absl::Status IdempotentCalls::Finish(const std::string& subject, const std::string& key, const Answer& answer) {
  if (answer.bytes.size() > kMaxAnswer) return Forget(subject, key);
  return database_
      .Run("UPDATE bulkhead_internal.idempotent_calls SET status = $3::int, answer = $4 WHERE subject = $1 AND key = $2",
           {subject, key, std::to_string(answer.code), secrets_.Seal(answer.bytes, Purpose(subject, key))})
      .status();
}

absl::Status IdempotentCalls::Reseal() {
  ASSIGN_OR_RETURN(const Rows rows,
                   database_.Run("SELECT subject, key, answer FROM bulkhead_internal.idempotent_calls WHERE answer IS NOT NULL"));
  for (int r = 0; r < rows.size(); ++r) {
    const std::string subject = rows.Text(r, "subject"), key = rows.Text(r, "key"), sealed = rows.Text(r, "answer");
    if (secrets_.Current(sealed)) continue;
    auto plain = secrets_.Open(sealed, Purpose(subject, key));
    if (!plain.ok()) continue;  // of a key that is gone: nothing is left to be lost
    RETURN_IF_ERROR(database_
                        .Run("UPDATE bulkhead_internal.idempotent_calls SET answer = $3 WHERE subject = $1 AND key = $2 AND answer = $4",
                             {subject, key, secrets_.Seal(*plain, Purpose(subject, key)), sealed})
                        .status());
  }
  return absl::OkStatus();
}

absl::Status IdempotentCalls::Forget(const std::string& subject, const std::string& key) {
  return database_.Run("DELETE FROM bulkhead_internal.idempotent_calls WHERE subject = $1 AND key = $2", {subject, key}).status();
}

}  // namespace bulkhead
