#include "supervisor/store/idempotency.h"

#include <algorithm>

#include "supervisor/base/digest.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

std::string Seconds(Millis time) { return std::to_string(time.count() / 1000) + " seconds"; }
// A request may hold a password, which could be guessed from a plain digest.
std::string DigestPurpose(const std::string& subject, const std::string& key) { return "request/" + subject + "/" + key; }
std::string Purpose(const std::string& subject, const std::string& key) { return "answer/" + subject + "/" + key; }

absl::Status InUse() {
  return Error("IDEMPOTENCY_KEY_IN_USE", "the first call with this idempotency key is still under way; ask again in a moment");
}

}  // namespace

absl::Status CheckIdempotencyKey(const std::string& key) {
  const bool visible = std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c < 127; });
  if (!key.empty() && key.size() <= IdempotentCalls::kMaxKey && visible) return absl::OkStatus();
  return Error("INVALID_ARGUMENT", "an idempotency key is 1 to 255 visible ASCII characters, such as a UUID");
}

absl::StatusOr<std::optional<IdempotentCalls::Answer>> IdempotentCalls::Begin(const std::string& subject, const std::string& key,
                                                                             const std::string& method, const std::string& request) {
  RETURN_IF_ERROR(CheckIdempotencyKey(key));
  const std::string digest = DigestHex(method + "\n" + request);
  std::optional<Answer> answer;
  RETURN_IF_ERROR(database_.Transaction([&](Connection& c) -> absl::Status {
    answer.reset();
    RETURN_IF_ERROR(c.Run("DELETE FROM bulkhead_internal.idempotent_calls WHERE started_at < now() - $1::interval", {Seconds(kMemory)}).status());
    ASSIGN_OR_RETURN(const Rows mine,
                     c.Run("INSERT INTO bulkhead_internal.idempotent_calls (subject, key, method, request, node) VALUES ($1, $2, $3, $4, $5) "
                           "ON CONFLICT (subject, key) DO NOTHING RETURNING key",
                           {subject, key, method, secrets_.Seal(digest, DigestPurpose(subject, key)), node_}));
    if (mine.size() == 1) return absl::OkStatus();
    ASSIGN_OR_RETURN(const Rows known, c.Run("SELECT request, status, answer, started_at < now() - $3::interval AS lost "
                                             "FROM bulkhead_internal.idempotent_calls WHERE subject = $1 AND key = $2 FOR UPDATE",
                                             {subject, key, Seconds(kLease)}));
    if (known.size() == 0) return InUse();  // forgotten just now
    ASSIGN_OR_RETURN(const std::string first, secrets_.Open(known.Text(0, "request"), DigestPurpose(subject, key)));
    if (first != digest) {
      return Error("IDEMPOTENCY_KEY_REUSED", "this idempotency key belongs to another request; take a new key for each thing to be done");
    }
    if (known.Null(0, "status")) {
      if (!known.Bool(0, "lost")) return InUse();
      // Taken over: a call whose node never answered.
      return c.Run("UPDATE bulkhead_internal.idempotent_calls SET started_at = now(), node = $3 WHERE subject = $1 AND key = $2",
                   {subject, key, node_})
          .status();
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
  ASSIGN_OR_RETURN(const Rows rows, database_.Run("SELECT subject, key, request, answer FROM bulkhead_internal.idempotent_calls"));
  for (int r = 0; r < rows.size(); ++r) {
    const std::string subject = rows.Text(r, "subject"), key = rows.Text(r, "key");
    const auto reseal = [&](const char* column, const std::string& purpose) -> absl::Status {
      if (rows.Null(r, column) || secrets_.Current(rows.Text(r, column))) return absl::OkStatus();
      auto plain = secrets_.Open(rows.Text(r, column), purpose);
      if (!plain.ok()) return absl::OkStatus();  // of a key that is gone: nothing is left to be lost
      return database_
          .Run(std::string("UPDATE bulkhead_internal.idempotent_calls SET ") + column + " = $3 WHERE subject = $1 AND key = $2 AND " + column + " = $4",
               {subject, key, secrets_.Seal(*plain, purpose), rows.Text(r, column)})
          .status();
    };
    RETURN_IF_ERROR(reseal("request", DigestPurpose(subject, key)));
    RETURN_IF_ERROR(reseal("answer", Purpose(subject, key)));
  }
  return absl::OkStatus();
}

absl::Status IdempotentCalls::Forget(const std::string& subject, const std::string& key) {
  return database_.Run("DELETE FROM bulkhead_internal.idempotent_calls WHERE subject = $1 AND key = $2", {subject, key}).status();
}

}  // namespace bulkhead
