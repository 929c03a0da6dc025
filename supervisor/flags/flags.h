// Feature flags: what the environment of this node, the API, the configuration file and the default say, in this order. Calls return
// at once and answer on the control loop; what is in force is an immutable FlagSet that any thread may keep. What another node changes
// is noticed within limits::kStorePoll.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/base/blocking_pool.h"
#include "supervisor/base/clock.h"
#include "supervisor/base/guarded.h"
#include "supervisor/base/loop.h"
#include "supervisor/base/status.h"
#include "supervisor/store/audit.h"
#include "supervisor/store/database.h"

namespace bulkhead {

struct Flag {
  std::string name;
  bool enabled = false;
  std::string source = "default";        // environment, api, file, default
  std::optional<int> percentage;         // of identities; absent: all
  std::vector<std::string> identities;   // for which it is on, whatever the percentage
  std::string description;
  int64_t revision = 0;                  // 0: not set by the API
  std::optional<WallTime> updated_at;
  std::string updated_by;
  bool operator==(const Flag&) const = default;

  // Whether it is on for somebody: the same answer for the same flag and identity on every node, and, while the percentage only grows,
  // once on it stays on.
  bool EnabledFor(std::string_view identity) const;
};

// All flags at one moment, by their environment variable's name (FeatureFlagVariable), under which spellings of one name meet.
class FlagSet {
 public:
  explicit FlagSet(std::map<std::string, Flag> by_variable) : flags_(std::move(by_variable)) {}
  const Flag* Find(std::string_view name) const;
  const std::map<std::string, Flag>& all() const { return flags_; }
  bool operator==(const FlagSet&) const = default;

 private:
  std::map<std::string, Flag> flags_;
};

struct FlagChange {
  bool enabled = false;
  std::optional<int> percentage;
  std::vector<std::string> identities;
  std::string description;
};

class Flags {
 public:
  template <typename T>
  using Done = std::function<void(absl::StatusOr<T>)>;
  struct Sources {
    std::map<std::string, bool> environment, file;  // by name
  };
  static constexpr size_t kMaxName = 128, kMaxIdentities = 1'000, kMaxIdentity = 128, kMaxDescription = 500;
  static constexpr size_t kMaxFlags = 10'000;  // that the API keeps; beyond: OVERLOADED
  static constexpr size_t kMaxTold = 2 << 20;  // bytes of these in a message to a module, which takes 4 MiB; beyond: OVERLOADED

  Flags(Loop& loop, BlockingPool& pool, Database& database, Sources sources);

  // Reads what the API has set. Blocking; at boot.
  absl::Status Load();
  // Reads it again when somebody, most likely another node, has changed it; tells of the change on the control loop. Blocking.
  void Follow();
  // Those of the configuration file are others now. Blocking: a change through the API may be under way; tells of the change on the control loop.
  void SetFile(std::map<std::string, bool> file);
  std::shared_ptr<const FlagSet> current() const;
  // Called on the control loop after each change, with what is in force then.
  void OnChange(std::function<void(std::shared_ptr<const FlagSet>)> changed) { changed_ = std::move(changed); }

  // FLAG_FIXED when the environment says otherwise; INVALID_ARGUMENT with a detail for each thing that is wrong.
  void Set(const std::string& name, FlagChange change, Actor by, Done<Flag> done);
  void Delete(const std::string& name, Actor by, Done<bool> done);  // FLAG_NOT_FOUND when the API has not set it

 private:
  // Runs `work`, which changes flags, on the pool; tells of the change, then answers.
  template <typename T>
  void Answer(std::function<absl::StatusOr<T>()> work, Done<T> done) {
    auto shared = std::make_shared<Done<T>>(std::move(done));
    const bool queued = pool_.Submit([this, work = std::move(work), shared] {
      auto result = std::make_shared<absl::StatusOr<T>>(work());
      loop_.Post([this, shared, result] {
        if (result->ok() && changed_) changed_(current());
        (*shared)(std::move(*result));
      });
    });
    if (!queued) loop_.Post([shared] { (*shared)(Error("OVERLOADED", "too many calls wait for the database; try again in a moment")); });
  }
  absl::StatusOr<std::vector<Flag>> Read();
  absl::StatusOr<int64_t> StoreVersion();
  absl::Status Reread();  // under write_
  void Rebuild();
  void Tell(const std::shared_ptr<const FlagSet>& before);

  Loop& loop_;
  BlockingPool& pool_;
  Database& database_;
  Sources sources_;  // under write_
  std::vector<Flag> stored_;  // as last read; under write_
  std::function<void(std::shared_ptr<const FlagSet>)> changed_;
  std::mutex write_;  // held over a change and the look at what it made: of two the later one counts
  int64_t store_version_ = 0;  // under write_; of what was read
  Guarded<std::shared_ptr<const FlagSet>> current_;
};

}  // namespace bulkhead
