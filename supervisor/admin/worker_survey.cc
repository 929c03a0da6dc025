#include "supervisor/admin/worker_survey.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "supervisor/base/limits.h"

namespace bulkhead {
namespace {

struct Asked {  // a call that is to be made
  std::string instance;
  std::shared_ptr<ControlPort> control;
  bool awaited = false;
};

// As the contract has them (proto/README.md): whatever else a module sends may not break the page of all modules.
bool Showable(const std::string& name) {
  const auto fits = [](unsigned char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'; };
  return !name.empty() && name.size() <= limits::kMaxInstrumentName && std::all_of(name.begin(), name.end(), fits) && !(name[0] >= '0' && name[0] <= '9');
}

// Keeps what may be shown of a worker's instruments; the number of the others.
int TrimInstruments(module::v1::MetricsResponse& values) {
  auto& custom = *values.mutable_custom();
  std::vector<std::string> names;
  for (const auto& [name, value] : custom) names.push_back(name);
  std::sort(names.begin(), names.end());
  size_t kept = 0;
  int left_out = 0;
  for (const std::string& name : names) {
    if (Showable(name) && kept < limits::kMaxInstruments) {
      ++kept;
    } else {
      custom.erase(name);
      ++left_out;
    }
  }
  return left_out;
}

}  // namespace

struct WorkerSurvey::State {
  struct Known {
    Worker worker;
    Instant at{};
  };

  explicit State(const Clock& clock) : clock(clock) {}

  const Clock& clock;
  std::mutex mutex;
  std::shared_ptr<const Directory> directory = std::make_shared<Directory>();
  std::map<std::string, Known> known;  // by instance
  std::vector<Done> waiting;           // for the survey that is under way
  size_t awaited = 0;                  // answers that it still waits for
  std::optional<Instant> begun;

  std::vector<Asked> Begin();
  std::vector<Worker> Workers() const;
  void Answered(const Asked& asked, const absl::Status& status, module::v1::MetricsResponse values);
  void Tell();
};

// Forgets who has left, and says whom to ask. Locked.
std::vector<Asked> WorkerSurvey::State::Begin() {
  begun = clock.Now();
  std::vector<Asked> ask;
  std::map<std::string, Known> still;
  for (const auto& [name, module] : directory->modules) {
    for (const DirectoryWorker& worker : module->workers) {
      if (still.size() >= limits::kMaxMeteredWorkers) break;
      auto before = known.find(worker.instance);
      Known& entry = still[worker.instance];
      if (before != known.end()) entry = std::move(before->second);
      const bool missed = before != known.end() && !entry.worker.answered;
      entry.worker.module = name;
      entry.worker.instance = worker.instance;
      entry.worker.slot = worker.slot;
      if (worker.control) ask.push_back({worker.instance, worker.control, !missed});
    }
  }
  known = std::move(still);
  awaited = size_t(std::count_if(ask.begin(), ask.end(), [](const Asked& one) { return one.awaited; }));
  return ask;
}

// Locked. During an upgrade two workers may have one slot: the one that is listed last is the newer.
std::vector<WorkerSurvey::Worker> WorkerSurvey::State::Workers() const {
  std::map<std::pair<std::string, int>, Worker> by_slot;
  for (const auto& [name, module] : directory->modules) {
    for (const DirectoryWorker& listed : module->workers) {
      const auto found = known.find(listed.instance);
      if (found == known.end()) continue;
      Worker worker = found->second.worker;
      if (worker.at) worker.age = std::chrono::duration_cast<Millis>(clock.Now() - found->second.at);
      by_slot[{name, listed.slot}] = std::move(worker);
    }
  }
  std::vector<Worker> workers;
  for (auto& [slot, worker] : by_slot) workers.push_back(std::move(worker));
  return workers;
}

void WorkerSurvey::State::Answered(const Asked& asked, const absl::Status& status, module::v1::MetricsResponse values) {
  bool last = false;
  {
    std::lock_guard lock(mutex);
    if (auto entry = known.find(asked.instance); entry != known.end()) {
      Worker& worker = entry->second.worker;
      worker.answered = status.ok();
      if (status.ok()) {
        entry->second.at = clock.Now();
        worker.at = clock.Wall();
        worker.left_out = TrimInstruments(values);
        worker.values = std::move(values);
      }
    }
    last = asked.awaited && --awaited == 0;
  }
  if (last) Tell();
}

void WorkerSurvey::State::Tell() {
  std::vector<Done> told;
  std::vector<Worker> workers;
  {
    std::lock_guard lock(mutex);
    told.swap(waiting);
    workers = Workers();
  }
  for (const Done& done : told) done(workers);
}

WorkerSurvey::WorkerSurvey(const Clock& clock) : state_(std::make_shared<State>(clock)) {}
WorkerSurvey::~WorkerSurvey() = default;

void WorkerSurvey::Adopt(std::shared_ptr<const Directory> directory, std::function<void()> adopted) {
  {
    std::lock_guard lock(state_->mutex);
    state_->directory = std::move(directory);
  }
  adopted();
}

void WorkerSurvey::Ask(Done done) {
  std::vector<Asked> ask;
  bool at_once = false;
  {
    std::lock_guard lock(state_->mutex);
    State& state = *state_;
    state.waiting.push_back(std::move(done));
    if (state.awaited > 0) return;  // one is under way
    if (!state.begun || state.clock.Now() - *state.begun >= limits::kMetricsCache) ask = state.Begin();
    at_once = state.awaited == 0;
  }
  for (const Asked& one : ask) {
    one.control->Metrics(limits::kMetricsTimeout, [state = state_, one](absl::Status status, module::v1::MetricsResponse values) {
      state->Answered(one, status, std::move(values));
    });
  }
  if (at_once) state_->Tell();
}

}  // namespace bulkhead
