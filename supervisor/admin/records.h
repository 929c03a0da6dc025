// What is kept of calls: a line of the log and a row of the audit for each that writes, and the answers to those that came with an
// idempotency key. Thread-safe; never blocks but where it says so.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "supervisor/auth/identity.h"
#include "supervisor/base/blocking_pool.h"
#include "supervisor/store/audit.h"
#include "supervisor/store/idempotency.h"

namespace bulkhead {

// A call that writes, as the audit names it.
struct AuditedCall {
  std::string action;
  Actor by;
  std::string module, target;  // empty: none, or not known
};

class Records {
 public:
  // Rows that wait for the database, of calls that changed nothing and of outcomes; beyond: left out of the audit, and counted in the log.
  static constexpr size_t kMaxWaiting = 512;

  Records(Database& database, SecretBox& secrets, BlockingPool& pool, std::string node);

  // The actor of one call.
  Actor ActorOf(const Identity* identity, std::string address, std::string request_id) const;
  // A call that writes goes on and its client is told so, or has left: `why`. Its outcome comes with Ended(). Nothing where a change of it has
  // said so already.
  void Accepted(const AuditedCall& call, std::string_view why);
  // The outcome of a call that writes. A change has written its row itself, in its own transaction; every other outcome is written here,
  // but for those of nobody: they are in the log alone, because anybody can make as many of them as he likes. (Failed logins of users that
  // exist are bounded, and written by Accounts.)
  void Ended(const AuditedCall& call, const absl::Status& result);
  // An answer that was given before, given again: a line of the log alone.
  void Replayed(const AuditedCall& call, const absl::Status& result);

  AuditLog& audit() { return audit_; }
  IdempotentCalls& idempotent() { return idempotent_; }
  BlockingPool& pool() { return pool_; }

 private:
  // Rows on their way into the database, in their order: one task of the pool at a time writes them. It holds what it needs, and so may end
  // after this object.
  struct Writer {
    explicit Writer(Database& database) : audit(database) {}
    void Drain();
    AuditLog audit;
    std::mutex mutex;
    std::deque<AuditRecord> waiting;  // under mutex, as what follows
    bool draining = false;
    int64_t left_out = 0;
  };
  void Append(AuditRecord record);

  AuditLog audit_;
  IdempotentCalls idempotent_;
  BlockingPool& pool_;
  const std::string node_;
  const std::shared_ptr<Writer> writer_;
};

// Whether an outcome is what the same call would have again, so that it may be its answer.
bool IsLasting(const absl::Status& status);

}  // namespace bulkhead
