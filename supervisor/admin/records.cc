#include "supervisor/admin/records.h"

#include <utility>

#include "supervisor/base/log.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

std::string Outcome(const absl::Status& result) { return result.ok() ? "OK" : ErrorCode(result); }

void LogCall(const AuditedCall& call, std::string_view result) {
  LogInfo("admin", call.action,
          {{"subject", call.by.subject.empty() ? "-" : call.by.subject},
           {"address", call.by.address},
           {"request", call.by.request_id},
           {"result", std::string(result)}});
}

AuditRecord RecordOf(const AuditedCall& call) {
  return {.by = call.by, .action = call.action, .module = call.module, .target = call.target.empty() ? call.module : call.target};
}

}  // namespace

Records::Records(Database& database, SecretBox& secrets, BlockingPool& pool, std::string node)
    : audit_(database), idempotent_(database, secrets, node), pool_(pool), node_(std::move(node)), writer_(std::make_shared<Writer>(database)) {}

Actor Records::ActorOf(const Identity* identity, std::string address, std::string request_id) const {
  Actor actor;
  if (identity != nullptr) {
    actor.subject = identity->subject;
    actor.credential = std::string(CredentialKindName(identity->credential.kind));
    actor.credential_id = identity->credential.id;
  }
  actor.address = std::move(address);
  actor.request_id = std::move(request_id);
  actor.node = node_;
  actor.recorded = std::make_shared<RecordedCall>();
  return actor;
}

void Records::Accepted(const AuditedCall& call, std::string_view why) {
  LogCall(call, kAccepted);
  if (call.by.subject.empty()) return;
  auto recorded = Recording::kNothing;
  if (call.by.recorded && !call.by.recorded->what.compare_exchange_strong(recorded, Recording::kAcceptance)) return;
  AuditRecord record = RecordOf(call);
  record.outcome = kAccepted;
  record.message = why;
  Append(std::move(record));
}

void Records::Ended(const AuditedCall& call, const absl::Status& result) {
  LogCall(call, Outcome(result));
  if (call.by.subject.empty()) return;
  const Recording before = call.by.recorded ? call.by.recorded->what.exchange(Recording::kOutcome) : Recording::kNothing;
  // A change that was made, and then something failed: that is told, too.
  if (result.ok() && before == Recording::kOutcome) return;
  AuditRecord record = RecordOf(call);
  record.outcome = Outcome(result);
  record.message = std::string(result.message());
  Append(std::move(record));
}

void Records::Replayed(const AuditedCall& call, const absl::Status& result) { LogCall(call, Outcome(result) + " (given again)"); }

void Records::Append(AuditRecord record) {
  Writer& writer = *writer_;
  std::lock_guard lock(writer.mutex);
  if (writer.waiting.size() >= kMaxWaiting) {
    ++writer.left_out;
    return;
  }
  writer.waiting.push_back(std::move(record));
  if (writer.draining) return;
  writer.draining = pool_.Submit([writer = writer_] { writer->Drain(); });
  if (writer.draining) return;
  writer.left_out += static_cast<int64_t>(writer.waiting.size());
  writer.waiting.clear();
}

void Records::Writer::Drain() {
  while (true) {
    AuditRecord record;
    {
      std::lock_guard lock(mutex);
      draining = !waiting.empty();
      if (!draining) return;
      record = std::move(waiting.front());
      waiting.pop_front();
    }
    const bool written = audit.Append(record).ok();
    std::lock_guard lock(mutex);
    if (!written) {
      ++left_out;
    } else if (left_out > 0) {
      LogWarn("audit", "calls are missing in the audit that changed nothing, or their outcomes: too many at once, or the database was away",
              {{"calls", std::to_string(std::exchange(left_out, 0))}});
    }
  }
}

bool IsLasting(const absl::Status& status) {
  if (status.ok()) return true;
  const std::string code = ErrorCode(status);
  if (code == "MODULE_BUSY" || code.starts_with("IDEMPOTENCY_")) return false;
  switch (HttpStatus(code)) {
    case 400:
    case 404:
    case 409: return true;
    default: return false;
  }
}

}  // namespace bulkhead
