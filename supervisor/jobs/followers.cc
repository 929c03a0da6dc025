#include "supervisor/jobs/followers.h"

#include <algorithm>
#include <cstdint>
#include <deque>
#include <utility>

#include "supervisor/base/guarded.h"

namespace bulkhead {

class RunFollowers::Follower final : public RunFollower {
 public:
  Follower(int64_t after, std::function<void()> wake) : wake_(std::move(wake)) {
    state_.With([&](State& state) { state.last = after; });
  }

  Event Next() override {
    return state_.With([](State& state) -> Event {
      if (!state.loaded) return {};
      // What it says before its end belongs before it, and so it does before the state that came with it.
      if (!state.lines.empty()) {
        Event event{.kind = Event::Kind::kLine, .line = std::move(state.lines.front())};
        state.lines.pop_front();
        return event;
      }
      if (std::exchange(state.fresh, false)) return {.kind = Event::Kind::kRun, .run = state.run};
      return {.kind = state.ended ? Event::Kind::kEnded : Event::Kind::kNothing};
    });
  }

  void Tell(const RunView& run, const std::vector<RunLogLine>& lines, bool stored) {
    const bool wake = state_.With([&](State& state) {
      if (state.loaded && state.ended) return false;
      if (!state.loaded && !stored) {
        state.early.insert(state.early.end(), lines.begin(), lines.end());
      } else {
        Add(state, lines);
        if (!std::exchange(state.loaded, true)) Add(state, std::exchange(state.early, {}));
      }
      const bool has_ended = run.status != RunStatus::kQueued && run.status != RunStatus::kRunning &&
                             !(run.status == RunStatus::kInterrupted && run.error_code == "SHUTDOWN");
      if (!state.ended && (!state.known || Differs(state.run, run))) {
        state.run = run;
        state.known = state.fresh = true;
      }
      state.ended = state.ended || has_ended;
      return state.loaded && (state.fresh || !state.lines.empty() || state.ended);
    });
    if (wake) wake_();
  }

  bool loaded() {
    return state_.With([](State& state) { return state.loaded; });
  }
  int64_t last() {
    return state_.With([](State& state) { return state.last; });
  }

 private:
  struct State {
    RunView run;
    std::deque<RunLogLine> lines;
    std::vector<RunLogLine> early;  // said before what the database has is there
    int64_t last = 0;
    bool loaded = false, known = false, fresh = false, ended = false;
  };
  static void Add(State& state, const std::vector<RunLogLine>& lines) {
    for (const RunLogLine& line : lines) {
      if (line.seq <= state.last) continue;
      state.last = line.seq;
      state.lines.push_back(line);
      if (state.lines.size() > limits::kMaxFollowedLines) state.lines.pop_front();
    }
  }
  static bool Differs(const RunView& a, const RunView& b) {
    return a.status != b.status || a.attempt != b.attempt || a.progress != b.progress || a.progress_message != b.progress_message ||
           a.cancel_requested != b.cancel_requested || a.worker != b.worker;
  }

  const std::function<void()> wake_;
  Guarded<State> state_;
};

std::shared_ptr<RunFollower> RunFollowers::Add(const std::string& run_id, int64_t after, std::function<void()> wake) {
  size_t count = 0;
  for (const auto& [id, followers] : by_run_) count += followers.size();
  if (count >= limits::kMaxRunFollowers) {
    followed();
    count = 0;
    for (const auto& [id, followers] : by_run_) count += followers.size();
    if (count >= limits::kMaxRunFollowers) return nullptr;
  }
  auto follower = std::make_shared<Follower>(after, std::move(wake));
  by_run_[run_id].push_back(follower);
  return follower;
}

void RunFollowers::Tell(const RunView& run, const std::vector<RunLogLine>& lines, bool stored) {
  auto found = by_run_.find(run.id);
  if (found == by_run_.end()) return;
  for (const auto& weak : found->second) {
    if (auto follower = weak.lock()) follower->Tell(run, lines, stored);
  }
}

std::vector<RunFollowers::Followed> RunFollowers::followed() {
  std::vector<Followed> all;
  for (auto entry = by_run_.begin(); entry != by_run_.end();) {
    auto& [id, followers] = *entry;
    std::erase_if(followers, [](const auto& weak) { return weak.expired(); });
    if (followers.empty()) {
      entry = by_run_.erase(entry);
      continue;
    }
    Followed one{id, INT64_MAX};
    for (const auto& weak : followers) {
      auto follower = weak.lock();
      if (!follower) continue;
      one.after = std::min(one.after, follower->last());
      one.waiting = one.waiting || !follower->loaded();
    }
    all.push_back(std::move(one));
    ++entry;
  }
  return all;
}

}  // namespace bulkhead
