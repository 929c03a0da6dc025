// What is kept of calls: a line of the log and a row of the audit for each that writes, and the answers to those that came with an
// idempotency key. Thread-safe; never blocks but where it says so.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "supervisor/auth/identity.h"
#include "supervisor/base/blocking_pool.h"
#include "supervisor/store/audit.h"
#include "supervisor/store/idempotency.h"

namespace bulkhead {

class Records {
 public:
  // Rows that wait for the database, of calls that changed nothing; beyond: left out of the audit, and counted in the log.
  static constexpr int kMaxWaiting = 512;

  Records(Database& database, SecretBox& secrets, BlockingPool& pool, std::string node);

  // The actor of one call.
  Actor ActorOf(const Identity* identity, std::string address, std::string request_id) const;
  // The end of a call that writes. A change has written its row itself, in its own transaction; every other outcome is written here,
  // but for those of nobody: they are in the log alone, because anybody can make as many of them as he likes. (Failed logins of users that
  // exist are bounded, and written by Accounts.)
  void Ended(std::string_view action, const Actor& by, const std::string& module, const absl::Status& result);

  AuditLog& audit() { return audit_; }
  IdempotentCalls& idempotent() { return idempotent_; }
  BlockingPool& pool() { return pool_; }

 private:
  AuditLog audit_;
  IdempotentCalls idempotent_;
  BlockingPool& pool_;
  const std::string node_;
  std::shared_ptr<std::atomic<int>> waiting_ = std::make_shared<std::atomic<int>>(0);
  std::atomic<int64_t> left_out_{0};
};

// Whether an outcome is what the same call would have again, so that it may be its answer.
bool IsLasting(const absl::Status& status);

}  // namespace bulkhead
