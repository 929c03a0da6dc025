// One worker process: what supervisor/worker/worker.cc makes of a program, with a fate in place of the program.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>

#include "supervisor/base/limits.h"
#include "supervisor/base/random.h"
#include "supervisor/lifecycle/step.h"
#include "tests/sim/timeline.h"

namespace bulkhead::sim {

// A manifest's.
struct Times {
  Millis handshake = limits::kHandshakeTimeout, start = limits::kStartTimeout, stop = limits::kStopTimeout;
  Millis drain = limits::kDrainTimeout, health_interval = limits::kHealthInterval, health_timeout = limits::kHealthTimeout;
};

// How the processes of a module behave for now.
enum class Mood {
  kFaultless,
  kFlaky,          // now and then something of all that follows
  kBroken,         // they end as soon as they are started, or soon after they are ready
  kHanging,        // no handshake, a start without an end, Health without an answer, deaf to Stop and SIGTERM
  kMisconfigured,  // exit code 125
  kDoomed,         // none is ever ready
};

// What becomes of one process, drawn when it is started.
struct Fate {
  enum class Start { kReady, kEnds, kNoHandshake, kHangs } start = Start::kReady;
  Millis start_takes{0};
  ExitCause ends_by = ExitCause::kExit;            // of an end of its own
  std::optional<Millis> ends_after, unwell_after;  // of being ready
  int missed_checks = 0;                           // Health calls without an answer before it is well again; 3 end it
  bool deaf_to_stop = false, deaf_to_term = false;
  Millis stop_takes{0};                 // the answer to Stop; and again the end after SIGTERM
  Millis kill_takes{0}, tree_takes{0};  // at most kKillTime together

  static Fate Draw(Mood mood, Random& random);
};
inline constexpr Millis kKillTime{60};

class Process : public std::enable_shared_from_this<Process> {
 public:
  struct Callbacks {
    std::function<void()> ready;
    std::function<void(ExitCause)> died;  // once
    std::function<void()> gone;           // once, after died; may let go of the process
    std::function<void(WorkerHealth)> health;
  };
  Process(Timeline& timeline, const Times& times, const Fate& fate, Callbacks callbacks)
      : timeline_(timeline), times_(times), fate_(fate), callbacks_(std::move(callbacks)) {}

  void Start() {
    InThisStage(Millis(2), [this] {
      stage_ = Stage::kHandshake;
      if (stop_asked_) return Terminate();
      Millis limit = std::min(times_.handshake, times_.start);
      if (fate_.start == Fate::Start::kNoHandshake) return InThisStage(limit, [this] { Fail(ExitCause::kHandshake); });
      if (fate_.start == Fate::Start::kEnds) return InThisStage(fate_.start_takes, [this] { Ended(fate_.ends_by); });
      InThisStage(Millis(15), [this] { Initialize(); });
    });
  }

  // Stop RPC, SIGTERM, SIGKILL. Hastens when called again with less.
  void Stop(Millis budget) {
    if (stage_ == Stage::kKill || stage_ == Stage::kDead) return;
    Instant end = timeline_.now() + budget;
    if (stop_asked_) {
      if (end >= stop_end_) return;
      stop_end_ = end;
      if (stage_ == Stage::kStop || stage_ == Stage::kTerm) ExpiresAt(end);
      return;
    }
    stop_asked_ = true;
    stop_end_ = end;
    if (stage_ == Stage::kSpawn) return;  // comes back to it
    if (stage_ != Stage::kServing) return Terminate();
    stage_ = Stage::kStop;
    ExpiresAt(timeline_.now() + std::min(budget, times_.stop));
    if (!fate_.deaf_to_stop) InThisStage(fate_.stop_takes, [this] { Terminate(); });
  }

  // It ends by itself, whatever it is about.
  void Crash() {
    if (stage_ != Stage::kSpawn && stage_ != Stage::kDead) Ended(fate_.ends_by);
  }

  // It has no faults of its own any more; what has begun takes its course.
  void Mend() { fate_.ends_after = fate_.unwell_after = std::nullopt; }

  bool ready() const { return was_ready_ && stage_ != Stage::kDead; }
  bool starting() const { return !was_ready_ && stage_ != Stage::kDead && !stop_asked_; }

 private:
  enum class Stage { kSpawn, kHandshake, kStart, kServing, kStop, kTerm, kKill, kDead };

  // Unless it has come to another stage by then.
  void InThisStage(Millis wait, std::function<void()> then) {
    timeline_.After(wait, [weak = weak_from_this(), stage = stage_, then = std::move(then)] {
      auto self = weak.lock();
      if (self && self->stage_ == stage) then();
    });
  }

  void Initialize() {
    stage_ = Stage::kStart;
    if (fate_.start == Fate::Start::kHangs || fate_.start_takes >= times_.start)
      return InThisStage(times_.start, [this] { Fail(ExitCause::kStartTimeout); });
    InThisStage(fate_.start_takes, [this] {
      stage_ = Stage::kServing;
      was_ready_ = true;
      if (fate_.ends_after) {
        InThisStage(*fate_.ends_after, [this] {
          if (fate_.ends_after) Ended(fate_.ends_by);
        });
      }
      if (fate_.unwell_after) InThisStage(*fate_.unwell_after, [this] { MissHealthCheck(); });
      callbacks_.ready();
    });
  }

  void MissHealthCheck() {
    if (!fate_.unwell_after) return callbacks_.health(WorkerHealth::kHealthy);
    InThisStage(times_.health_timeout, [this] {
      if (++missed_ == 3) return Fail(ExitCause::kLiveness);
      bool again = missed_ < fate_.missed_checks;
      callbacks_.health(WorkerHealth::kUnhealthy);
      InThisStage(times_.health_interval,
                  [this, again] { again ? MissHealthCheck() : callbacks_.health(WorkerHealth::kHealthy); });
    });
  }

  void Fail(ExitCause cause) {
    failure_ = cause;
    Kill();
  }

  void Terminate() {
    stage_ = Stage::kTerm;
    ExpiresAt(std::min(stop_end_, timeline_.now() + limits::kTermGrace));
    if (!fate_.deaf_to_term) InThisStage(fate_.stop_takes, [this] { Ended(ExitCause::kExit); });
  }

  void ExpiresAt(Instant at) {
    InThisStage(std::chrono::ceil<Millis>(at - timeline_.now()), [this] { stage_ == Stage::kStop ? Terminate() : Kill(); });
  }

  void Kill() {
    stage_ = Stage::kKill;
    InThisStage(fate_.kill_takes, [this] { Ended(ExitCause::kSignal); });
  }

  void Ended(ExitCause cause) {
    stage_ = Stage::kDead;
    callbacks_.died(failure_.value_or(cause));
    InThisStage(fate_.tree_takes, [this] { callbacks_.gone(); });
  }

  Timeline& timeline_;
  const Times& times_;
  Fate fate_;
  Callbacks callbacks_;
  Stage stage_ = Stage::kSpawn;
  bool was_ready_ = false, stop_asked_ = false;
  Instant stop_end_{};
  std::optional<ExitCause> failure_;
  int missed_ = 0;
};

// From `least` to `most`, each magnitude as likely as the others.
inline Millis Between(Random& random, Millis least, Millis most) {
  double low = static_cast<double>(least.count()), high = static_cast<double>(most.count());
  return Millis(static_cast<int64_t>(low * std::pow(high / low, random.Unit())));
}

inline Fate Fate::Draw(Mood mood, Random& random) {
  using namespace std::chrono_literals;
  Fate fate;
  fate.start_takes = Between(random, 2ms, 300ms);
  fate.stop_takes = Between(random, 2ms, 500ms);
  fate.kill_takes = Between(random, 1ms, kKillTime / 2);
  fate.tree_takes = Between(random, 1ms, kKillTime / 2);
  if (mood == Mood::kFlaky) {
    static constexpr Mood kMoods[] = {Mood::kBroken, Mood::kHanging, Mood::kMisconfigured};
    uint64_t luck = random.Below(100);
    mood = luck < 60 ? Mood::kFaultless : kMoods[luck < 78 ? 0 : luck < 99 ? 1 : 2];
    if (random.Below(2) == 0) fate.ends_after = Between(random, 1ms, 2h);
    if (random.Below(10) == 0) fate.start_takes = Between(random, 300ms, 90s);
    if (random.Below(10) == 0) fate.stop_takes = Between(random, 500ms, 60s);
  }
  // No cause of the supervisor's own making: those come about.
  static constexpr ExitCause kCauses[] = {ExitCause::kExit, ExitCause::kSignal, ExitCause::kOom};
  fate.ends_by = kCauses[random.Below(3)];
  switch (mood) {
    case Mood::kFaultless:
    case Mood::kFlaky: break;
    case Mood::kBroken:
      if (random.Below(4) != 0) fate.start = Start::kEnds;
      fate.ends_after = Between(random, 1ms, 2s);
      break;
    case Mood::kHanging:
      switch (random.Below(5)) {
        case 0: fate.start = Start::kNoHandshake; break;
        case 1: fate.start = Start::kHangs; break;
        case 2: fate.unwell_after = Between(random, 1ms, 60s); break;
        default: break;
      }
      fate.missed_checks = 1 + static_cast<int>(random.Below(3));
      fate.deaf_to_stop = random.Below(2) == 0;
      fate.deaf_to_term = random.Below(2) == 0;
      break;
    case Mood::kMisconfigured:
      fate.start = Start::kEnds;
      fate.ends_by = ExitCause::kConfig;
      break;
    case Mood::kDoomed: {
      static constexpr Start kStarts[] = {Start::kEnds, Start::kEnds, Start::kHangs, Start::kNoHandshake};
      fate.start = kStarts[random.Below(4)];
      break;
    }
  }
  return fate;
}

}  // namespace bulkhead::sim
