// SIGHUP: the configuration is read again, and all of it is applied or nothing. Lives on the control loop; the reading is done on the pool,
// because a file may be on a disk that hangs.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "supervisor/auth/authenticator.h"
#include "supervisor/base/blocking_pool.h"
#include "supervisor/base/loop.h"
#include "supervisor/config.h"
#include "supervisor/flags/flags.h"
#include "supervisor/lifecycle/reconciler.h"
#include "supervisor/notify/notifier.h"
#include "supervisor/store/audit.h"
#include "supervisor/store/registry.h"

namespace bulkhead {

// Makes the configuration from its layers again: the same options and variables as at the start, and the file as it is now.
using RereadConfig = std::function<absl::StatusOr<Config>()>;

class Reload {
 public:
  struct Parts {
    Loop& loop;
    BlockingPool& pool;
    Flags& flags;
    Registry& registry;
    Authenticator& authenticator;
    Database& database;
    Reconciler& reconciler;
    WithNotifications& notifications;
    std::string node;
  };
  Reload(Parts parts, RereadConfig reread, Config config, std::vector<VerificationKey> keys)
      : parts_(std::move(parts)), reread_(std::move(reread)), config_(std::move(config)), keys_(std::move(keys)) {}
  Reload(const Reload&) = delete;

  // `done` on the loop, with a sentence for people. Once more when it is asked for while one is under way. What changed, or why nothing did, is
  // in the log and in the audit (config.reload).
  void Run(std::function<void(const std::string& outcome)> done);

 private:
  struct Outcome {
    absl::Status status;
    std::string sentence;
    Config config;
    std::vector<VerificationKey> keys;
  };
  Outcome Apply();  // on the pool

  const Parts parts_;
  const RereadConfig reread_;
  Config config_;                      // in force; touched by the pool only while `running_`
  std::vector<VerificationKey> keys_;  // the same
  bool running_ = false, again_ = false;
};

}  // namespace bulkhead
