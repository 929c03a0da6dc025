// Who can be delivered to now, and how many calls are under way to whom. Thread-safe, and never waits for the database: a Directory is adopted
// at once, whatever the thread that delivers is doing.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/base/guarded.h"
#include "supervisor/lifecycle/directory.h"

namespace bulkhead {

namespace limits {
inline constexpr int kMaxCallsPerWorker = 4;  // deliveries under way to one worker; beyond, events wait
}  // namespace limits

class Recipients {
 public:
  void Adopt(std::shared_ptr<const Directory> directory);
  // `drained` once no call to the instance is under way; perhaps at once, perhaps from End().
  void Drain(const std::string& instance, std::function<void()> drained);

  // Modules that subscribe to something and have a ready worker.
  std::vector<std::string> Ready() const;
  struct Pick {
    std::string instance;
    std::shared_ptr<ControlPort> control;
  };
  // The ready worker of the module with the fewest calls, which has one more from now on; nullopt when each has as many as it may.
  std::optional<Pick> Begin(const std::string& module);
  void End(const std::string& instance);
  bool Listed(const std::string& module, const std::string& instance) const;

 private:
  struct State {
    std::shared_ptr<const Directory> directory = std::make_shared<Directory>();
    std::map<std::string, int> calls;                           // by instance
    std::multimap<std::string, std::function<void()>> drains;  // by instance
  };
  Guarded<State> state_;
};

}  // namespace bulkhead
