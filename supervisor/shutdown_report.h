// What a shutdown had to kill, as its last line in the log says it. A value.
#pragma once

#include <string>
#include <vector>

#include "supervisor/process/spawner.h"

namespace bulkhead {

class ShutdownReport {
 public:
  // From now on it is not the module's fault alone: "a second signal".
  void Because(std::string why) { why_ = std::move(why); }
  // Of the child `id`, "orders.0.3f2a"; initdb, which nobody misses, is left out.
  void Add(const std::string& id, const std::vector<KilledProcess>& killed);
  // Killed, and did not end: "orders.0.3f2a".
  void Stuck(const std::string& id);
  // Nobody waited for it any more: "orders (process 4711)", or what belongs to no module, "blocking work".
  void LeftBehind(const std::vector<std::string>& what);

  bool empty() const { return lines_.empty() && left_.empty(); }
  bool something_stuck() const { return stuck_; }
  std::string modules() const;    // "orders, postgres"; sorted, each once
  std::string processes() const;  // "orders: 4711 orders (did not end when asked), 4712 sleep (left behind by it)"
  std::string left() const;       // empty, or what still ran at the end

 private:
  struct Line {
    std::string module, text;
  };
  std::vector<Line> lines_;
  std::vector<std::string> left_;
  std::string why_;
  bool stuck_ = false;
};

}  // namespace bulkhead
