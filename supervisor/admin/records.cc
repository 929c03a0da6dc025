#include "supervisor/admin/records.h"

#include "supervisor/base/log.h"
#include "supervisor/base/status.h"

namespace bulkhead {

Records::Records(Database& database, SecretBox& secrets, BlockingPool& pool, std::string node)
    : audit_(database), idempotent_(database, secrets, node), pool_(pool), node_(std::move(node)) {}

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
  actor.recorded = std::make_shared<std::atomic<bool>>(false);
  return actor;
}

void Records::Ended(std::string_view action, const Actor& by, const std::string& module, const absl::Status& result) {
  LogInfo("admin", action,
          {{"subject", by.subject.empty() ? "-" : by.subject},
           {"address", by.address},
           {"request", by.request_id},
           {"result", result.ok() ? "OK" : ErrorCode(result)}});
  if (by.subject.empty() || (by.recorded && by.recorded->load())) return;
  AuditRecord record{.by = by, .action = std::string(action), .module = module, .target = module};
  if (!result.ok()) {
    record.outcome = ErrorCode(result);
    record.message = std::string(result.message());
  }
  if (waiting_->fetch_add(1) >= kMaxWaiting) {
    waiting_->fetch_sub(1);
    left_out_.fetch_add(1);
    return;
  }
  const bool queued = pool_.Submit([this, record = std::move(record), waiting = waiting_] {
    if (absl::Status written = audit_.Append(record); !written.ok()) {
      left_out_.fetch_add(1);
    } else if (const int64_t lost = left_out_.exchange(0); lost > 0) {
      LogWarn("audit", "calls that changed nothing are missing in the audit: too many at once, or the database was away",
              {{"calls", std::to_string(lost)}});
    }
    waiting->fetch_sub(1);
  });
  if (!queued) {
    waiting_->fetch_sub(1);
    left_out_.fetch_add(1);
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
