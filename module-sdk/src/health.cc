#include "health.h"

#include <algorithm>
#include <stdexcept>
#include <system_error>
#include <thread>

namespace bulkhead::sdk {
namespace {
using Clock = std::chrono::steady_clock;
constexpr Clock::duration kOverallTimeout = std::chrono::seconds(1);  // or a quarter of the checks' budget, if that is less
}  // namespace

struct HealthChecks::Slot {
  std::string name;
  std::mutex mutex;
  std::condition_variable done_changed;
  bool running = false;
  Clock::time_point began;
  Clock::time_point ended;
  HealthResult result;
};

void HealthChecks::Add(std::string name, HealthCheck check) {
  if (name.empty() || !check) throw std::invalid_argument("a health check needs a name and a function");
  if (entries_.size() >= kMaxHealthChecks) throw std::invalid_argument("more than 32 health checks");
  for (const Entry& entry : entries_)
    if (entry.name == name) throw std::invalid_argument("there is a health check " + name + " already");
  entries_.push_back({std::move(name), std::move(check), nullptr});
}

std::shared_ptr<HealthChecks::Slot> HealthChecks::Launch(std::shared_ptr<Slot> slot, HealthCheck check,
                                                         std::shared_ptr<std::atomic<int>> running) {
  {
    std::lock_guard lock(slot->mutex);
    if (slot->running) return slot;  // the last call of it still hangs: no second one behind it
    slot->running = true;
    slot->began = Clock::now();
  }
  ++*running;
  auto answer = [slot, running](HealthResult result) {
    {
      std::lock_guard lock(slot->mutex);
      slot->result = std::move(result);
      slot->ended = Clock::now();
      slot->running = false;
    }
    slot->done_changed.notify_all();
    --*running;
  };
  try {
    std::thread([answer, check = std::move(check)] {
      HealthResult result;
      try {
        result = check();
      } catch (const std::exception& error) {
        result = {HealthStatus::kUnhealthy, error.what()};
      } catch (...) {
        result = {HealthStatus::kUnhealthy, "the check threw something that is no std::exception"};
      }
      answer(std::move(result));
    }).detach();  // a hung check must not hold up the end of the process
  } catch (const std::system_error&) {  // the limit on processes
    answer({HealthStatus::kUnhealthy, "no thread could be started"});
  }
  return slot;
}

CheckReport HealthChecks::Await(Slot& slot, Clock::time_point until) {
  std::unique_lock lock(slot.mutex);
  bool done = slot.done_changed.wait_until(lock, until, [&] { return !slot.running; });
  std::chrono::duration<double, std::milli> took = (done ? slot.ended : Clock::now()) - slot.began;
  if (!done) return {slot.name, {HealthStatus::kUnhealthy, "timed out"}, took.count()};
  return {slot.name, slot.result, took.count()};
}

HealthReport HealthChecks::Run(std::chrono::milliseconds budget, std::function<HealthResult(HealthStatus)> overall, std::vector<CheckReport> known) {
  auto until = Clock::now() + std::min(budget, kHealthCheckTimeout);
  for (Entry& entry : entries_) {
    if (!entry.slot) {
      entry.slot = std::make_shared<Slot>();
      entry.slot->name = entry.name;
    }
    Launch(entry.slot, entry.check, running_);
  }
  HealthReport report;
  for (Entry& entry : entries_) {
    report.checks.push_back(Await(*entry.slot, until));
    report.status = std::max(report.status, report.checks.back().result.status);
  }
  for (CheckReport& check : known) {
    report.status = std::max(report.status, check.result.status);
    report.checks.push_back(std::move(check));
  }
  if (!overall_slot_) {
    overall_slot_ = std::make_shared<Slot>();
    overall_slot_->name = "module";
  }
  HealthStatus worst = report.status;
  Launch(
      overall_slot_, [overall = std::move(overall), worst] { return overall(worst); }, running_);
  CheckReport last = Await(*overall_slot_, Clock::now() + std::min(kOverallTimeout, Clock::duration(budget) / 4));
  report.status = last.result.status;
  if (last.result.status != worst || !last.result.message.empty()) report.checks.push_back(std::move(last));
  return report;
}

}  // namespace bulkhead::sdk
