// What every ready worker says in the contract's Metrics: asked when somebody wants to know, all at once, at most once in limits::kMetricsCache,
// each for at most limits::kMetricsTimeout. One that did not answer the last time is asked and not waited for. Thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/lifecycle/directory.h"

namespace bulkhead {

class WorkerSurvey : public DirectoryReader {
 public:
  struct Worker {
    std::string module, instance;
    int slot = 0;
    bool answered = false;          // the last time
    std::optional<WallTime> at;     // of the values; nullopt: it has never answered
    Millis age{0};
    ::bulkhead::module::v1::MetricsResponse values;  // its instruments within limits::kMaxInstruments and kMaxInstrumentName
    int left_out = 0;               // instruments beyond these
  };
  using Done = std::function<void(std::vector<Worker>)>;  // by module and slot, each slot once

  explicit WorkerSurvey(const Clock& clock);
  ~WorkerSurvey() override;

  void Adopt(std::shared_ptr<const Directory> directory, std::function<void()> adopted) override;
  void Drain(const std::string& instance, std::function<void()> drained) override { drained(); }

  // `done` from any thread, at the latest when the timeout is over; at once when the last answers are recent enough.
  void Ask(Done done);

 private:
  struct State;
  const std::shared_ptr<State> state_;  // answers may come after the end of this object
};

}  // namespace bulkhead
