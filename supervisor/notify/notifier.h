// Notifications of modules: queued as runs of a module that this supervisor itself is, "bulkhead.notifications", with a job for each channel that the operator
// has configured here; sent on threads of their own. So the jobs retry, lease, cancel and show them as any run. Outlives the jobs.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "supervisor/base/blocking_pool.h"
#include "supervisor/lifecycle/directory.h"
#include "supervisor/notify/settings.h"
#include "supervisor/store/database.h"

namespace bulkhead {

namespace limits {
inline constexpr int kNotificationsAtOnce = 4;   // of a channel, in the whole cluster
inline constexpr int kNotificationThreads = 8;   // of this node; beyond: what is claimed waits for one
inline constexpr int kNotificationHistory = 1'000;  // of a channel that are kept, 30 days at most
}  // namespace limits

inline constexpr char kNotificationModule[] = "bulkhead.notifications";

class Notifier {
 public:
  Notifier(Database& database, const Clock& clock, NotificationSettings settings);
  Notifier(const Notifier&) = delete;
  ~Notifier();  // ends what is being sent, which is then sent again

  // The id of its run. Blocking; thread-safe. PermissionDenied, InvalidArgument, ResourceExhausted with a sentence; DATABASE_UNAVAILABLE.
  absl::StatusOr<std::string> Queue(const std::string& module, const std::string& channel, const std::string& message_json);
  // What is sent from now on, of runs that are queued already, too. Control loop; the jobs are to be told of the new module().
  void Configure(NotificationSettings settings);
  // Itself as the jobs see it; null when no channel is configured. Control loop.
  std::shared_ptr<const DirectoryModule> module() const { return module_; }

 private:
  class Port;
  Database& database_;
  std::shared_ptr<Port> port_;
  std::shared_ptr<const DirectoryModule> module_;
};

// Hands the jobs each Directory with that module in it. Control loop.
class WithNotifications : public DirectoryReader {
 public:
  // Both outlive it.
  WithNotifications(DirectoryReader& jobs, Notifier& notifier) : jobs_(jobs), notifier_(notifier) {}
  void Adopt(std::shared_ptr<const Directory> directory, std::function<void()> adopted) override;
  void Drain(const std::string& instance, std::function<void()> drained) override { jobs_.Drain(instance, std::move(drained)); }
  // Other channels, without waiting for another Directory.
  void Configure(NotificationSettings settings);

 private:
  DirectoryReader& jobs_;
  Notifier& notifier_;
  std::shared_ptr<const Directory> directory_;  // the last one; null: none yet
};

}  // namespace bulkhead
