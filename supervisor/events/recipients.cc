#include "supervisor/events/recipients.h"

#include <algorithm>

namespace bulkhead {

void Recipients::Adopt(std::shared_ptr<const Directory> directory) {
  state_.With([&](State& state) { state.directory = std::move(directory); });
}

void Recipients::Drain(const std::string& instance, std::function<void()> drained) {
  const bool now = state_.With([&](State& state) {
    if (!state.calls.contains(instance)) return true;
    state.drains.emplace(instance, drained);
    return false;
  });
  if (now) drained();
}

std::vector<std::string> Recipients::Ready() const {
  return state_.With([](const State& state) {
    std::vector<std::string> ready;
    for (const auto& [name, module] : state.directory->modules) {
      if (!module->workers.empty() && !module->manifest->subscribes.empty()) ready.push_back(name);
    }
    return ready;
  });
}

std::optional<Recipients::Pick> Recipients::Begin(const std::string& module) {
  return state_.With([&](State& state) -> std::optional<Pick> {
    auto found = state.directory->modules.find(module);
    if (found == state.directory->modules.end()) return std::nullopt;
    const DirectoryWorker* best = nullptr;
    int best_calls = limits::kMaxCallsPerWorker;
    for (const DirectoryWorker& worker : found->second->workers) {
      auto calls = state.calls.find(worker.instance);
      const int count = calls == state.calls.end() ? 0 : calls->second;
      if (count >= best_calls) continue;
      best = &worker;
      best_calls = count;
    }
    if (best == nullptr) return std::nullopt;
    ++state.calls[best->instance];
    return Pick{best->instance, best->control};
  });
}

void Recipients::End(const std::string& instance) {
  std::vector<std::function<void()>> answers;
  state_.With([&](State& state) {
    auto calls = state.calls.find(instance);
    if (--calls->second > 0) return;
    state.calls.erase(calls);
    auto [begin, end] = state.drains.equal_range(instance);
    for (auto it = begin; it != end; ++it) answers.push_back(std::move(it->second));
    state.drains.erase(begin, end);
  });
  for (auto& answer : answers) answer();
}

bool Recipients::Listed(const std::string& module, const std::string& instance) const {
  return state_.With([&](const State& state) {
    auto found = state.directory->modules.find(module);
    return found != state.directory->modules.end() &&
           std::any_of(found->second->workers.begin(), found->second->workers.end(), [&](const auto& w) { return w.instance == instance; });
  });
}

}  // namespace bulkhead
