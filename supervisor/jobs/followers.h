// Who reads runs as they go on. Lives on the control loop; what it hands out is thread-safe.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "supervisor/jobs/jobs.h"

namespace bulkhead {

namespace limits {
inline constexpr size_t kMaxRunFollowers = 1'000;   // on a node; beyond: OVERLOADED
inline constexpr size_t kMaxFollowedLines = 2'000;  // that a slow reader has before him; the oldest go, they are in the log
}  // namespace limits

class RunFollowers {
 public:
  // Null beyond limits::kMaxRunFollowers. Lines behind `after`.
  std::shared_ptr<RunFollower> Add(const std::string& run_id, int64_t after, std::function<void()> wake);
  // The run as it is now, and what it has said; a line twice, or an earlier one, is left out. `stored` are lines out of the database, which come
  // before all that is said meanwhile. A run that has ended ends its followers.
  void Tell(const RunView& run, const std::vector<RunLogLine>& lines, bool stored = false);
  struct Followed {
    std::string run_id;
    int64_t after = 0;     // the last line that all of its followers have had
    bool waiting = false;  // one of them still needs what was said before
  };
  std::vector<Followed> followed();
  bool empty() const { return by_run_.empty(); }

 private:
  class Follower;
  std::map<std::string, std::vector<std::weak_ptr<Follower>>> by_run_;
};

}  // namespace bulkhead
