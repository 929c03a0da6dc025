#include "supervisor/lifecycle/step.h"

#include <algorithm>
#include <utility>

#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"

namespace bulkhead {
namespace {

using Phase = SlotState::Phase;
using Role = SlotState::Role;
using Prepare = ModuleState::Prepare;

// The slot that an event speaks of, unless it speaks of an earlier process.
SlotState* Find(ModuleState& state, int slot, uint64_t run) {
  if (slot < 0 || static_cast<size_t>(slot) >= state.slots.size()) return nullptr;
  SlotState& found = state.slots[static_cast<size_t>(slot)];
  return found.run == run && found.phase != Phase::kEmpty ? &found : nullptr;
}

void ForgetFailures(ModuleState& state) {
  state.start_exhausted = false;
  state.prepare_backoff.Clear();
  if (state.prepare == Prepare::kFailed || state.prepare == Prepare::kWaiting) state.prepare = Prepare::kNone;
  for (SlotState& slot : state.slots) {
    slot.backoff.Clear();
    slot.retry_at.reset();
    slot.parked = false;
    slot.failed_starts = 0;
  }
}

class Apply {
 public:
  Apply(ModuleState& state, Instant now, std::vector<Action>& actions)
      : state_(state), now_(now), settled_before_(Settled(state)), actions_(actions) {}

  void operator()(const event::Want& want) {
    bool begins = want.enabled && !want.skipped && !(state_.wanted && !state_.skipped);
    state_.generation = want.generation;
    state_.wanted = want.enabled;
    state_.skipped = want.skipped;
    if (begins) {
      // A wish anew starts with a clean slate; a migration may have come in meanwhile.
      ForgetFailures(state_);
      if (state_.prepare == Prepare::kDone) state_.prepare = Prepare::kNone;
      state_.prepare_overtaken = state_.prepare == Prepare::kRunning;
      state_.was_ready = false;
      state_.reason = {};
      for (SlotState& slot : state_.slots) {
        slot.restarts = 0;
        slot.exits.clear();
      }
    }
    const size_t before = std::exchange(state_.workers, static_cast<size_t>(want.workers));
    state_.warm_spare = want.warm_spare;
    const bool serves = std::any_of(state_.slots.begin(), state_.slots.end(), Serves);
    if (!begins && want.enabled && serves && state_.workers > before)
      reason_ = {"SCALING", "it goes from " + std::to_string(before) + " to " + std::to_string(state_.workers) + " workers"};
    publish_ = true;
  }

  void operator()(const event::Close&) { state_.closing = true; }

  void operator()(const event::Retry&) { ForgetFailures(state_); }

  void operator()(const event::Restart& restart) {
    for (SlotState& slot : state_.slots) slot.outdated = false;
    for (int index : restart.slots) {
      if (index < 0 || static_cast<size_t>(index) >= state_.slots.size()) continue;
      SlotState& slot = state_.slots[static_cast<size_t>(index)];
      slot.outdated = slot.phase == Phase::kStarting || slot.phase == Phase::kReady;
    }
  }

  void operator()(const event::Replace& replace) {
    if (!state_.wanted || state_.skipped || state_.closing || state_.replacement) return;  // Converge() would give it up at once
    ModuleState::Replacement& replacement = state_.replacement.emplace();
    replacement.at_once = replace.at_once;
    replacement.workers = static_cast<size_t>(replace.workers);
    if (replacement.at_once) {
      for (int number = 0; number < replace.workers; ++number) Seat(number, Role::kSuccessor);
      return;
    }
    for (const SlotState& slot : state_.slots) {
      if (Serves(slot)) replacement.left.push_back(slot.number);
      else if (InService(slot)) replacement.spare = slot.run;
    }
    std::sort(replacement.left.begin(), replacement.left.end());
  }

  void operator()(const event::TakeOver& take) {
    if (!state_.replacement || !state_.replacement->announced) return;
    if (!state_.replacement->failure.code.empty()) return GiveUp(state_.replacement->failure);
    for (SlotState& slot : state_.slots) {
      if (slot.role == Role::kMember || slot.role == Role::kSpare) slot.role = Role::kLeaving;
      if (slot.role == Role::kSuccessor) slot.role = Role::kMember;
    }
    state_.workers = state_.replacement->workers;
    state_.warm_spare = take.warm_spare;
    state_.replacement.reset();
    // All that was wrong was the old one's.
    state_.prepare = Prepare::kDone;
    state_.prepare_backoff.Clear();
    state_.was_ready = true;
    state_.start_exhausted = false;
    state_.reason = {};
    if (take.soak > Millis(0)) state_.soak_until = now_ + take.soak;
    publish_ = true;
    actions_.push_back(action::ReplaceDone{});
  }

  void operator()(const event::KeepOld& keep) {
    if (state_.replacement) GiveUp(keep.reason);
  }

  void operator()(const event::Prepared& prepared) {
    if (state_.prepare != Prepare::kRunning) return;
    if (std::exchange(state_.prepare_overtaken, false) && !prepared.transient) {
      // It speaks of a configuration and of dependencies that may be of the past. A transient failure is tried again anyway.
      state_.prepare = Prepare::kNone;
      return;
    }
    if (prepared.ok) {
      state_.prepare = Prepare::kDone;
      state_.prepare_backoff.Clear();
      return;
    }
    reason_ = prepared.reason;
    if (!prepared.transient) {
      state_.prepare = Prepare::kFailed;
      return;
    }
    state_.prepare = Prepare::kWaiting;
    RestartPolicy policy = state_.policy;
    policy.quarantine_retry = policy.cap;  // who waits for a database is not at fault: no quarantine
    state_.prepare_retry_at =
        std::max(state_.prepare_backoff.OnExit(policy, now_, Millis(0), state_.random), now_ + Millis(100));
    if (state_.prepare_backoff.waiting_long()) state_.start_exhausted = !state_.was_ready;
  }

  void operator()(const event::WorkerReady& ready) {
    SlotState* slot = Find(state_, ready.slot, ready.run);
    if (!slot || slot->phase != Phase::kStarting) return;
    slot->phase = Phase::kReady;
    slot->ready_since = now_;
    slot->health = WorkerHealth::kHealthy;
    slot->failed_starts = 0;
    slot->unready = false;
    slot->faulty_until.reset();
    slot->flooding_until.reset();
    if (slot->role == Role::kSuccessor) return;  // nobody is told of it before it takes over
    publish_ = true;
    if (slot->role == Role::kSpare) return;
    state_.was_ready = true;
    state_.start_exhausted = false;
  }

  void operator()(const event::WorkerDrained& drained) {
    SlotState* slot = Find(state_, drained.slot, drained.run);
    if (!slot || slot->phase != Phase::kDraining) return;
    Stop(*slot, drained.slot);
  }

  void operator()(const event::WorkerDied& died) {
    SlotState* slot = Find(state_, died.slot, died.run);
    if (!slot || slot->phase == Phase::kDying) return;
    const bool was_ready = InService(*slot), spare = slot->role == Role::kSpare;
    bool expected = slot->phase == Phase::kDraining || slot->phase == Phase::kStopping;
    slot->phase = Phase::kDying;
    if (was_ready) publish_ = true;
    if (!died.stop_notes.empty()) reason_ = {"STOP_FAILED", died.stop_notes};
    if (expected) return;
    Reason reason = {died.code.empty() ? std::string(ExitCauseName(died.cause)) : died.code, died.message};
    if (slot->role == Role::kSuccessor) {
      slot->role = Role::kLeaving;
      return Fails(reason);
    }
    if (!spare) SpeaksAgainst(reason);
    ++slot->restarts;
    ++slot->exits[died.cause];
    const RestartWhen when = state_.policy.when;
    if (when == RestartWhen::kNever || (when == RestartWhen::kOnFailure && died.orderly)) {
      reason.message += "; it is not started again before something changes (restart.policy is " + std::string(RestartWhenName(when)) + ")";
      slot->parked = true;
    }
    if (!spare) reason_ = reason;  // who serves does so without a spare
    if (died.cause == ExitCause::kConfig) slot->parked = true;
    if (slot->parked) return;
    Millis ready_for = was_ready ? std::chrono::duration_cast<Millis>(now_ - slot->ready_since) : Millis(0);
    slot->retry_at = slot->backoff.OnExit(state_.policy, now_, ready_for, state_.random);
    // Also one that fails so slowly, by timeouts, that it never waits: nobody else is to wait for it for ever.
    slot->failed_starts = was_ready ? 0 : slot->failed_starts + 1;
    const bool used_up = slot->backoff.waiting_long() || slot->failed_starts > state_.policy.burst;
    if (used_up && !spare && !state_.was_ready) state_.start_exhausted = true;
  }

  void operator()(const event::WorkerGone& gone) {
    SlotState* slot = Find(state_, gone.slot, gone.run);
    if (!slot || slot->phase != Phase::kDying) return;
    slot->phase = Phase::kEmpty;
  }

  void operator()(const event::WorkerHealthChanged& changed) {
    SlotState* slot = Find(state_, changed.slot, changed.run);
    if (!slot || slot->phase != Phase::kReady) return;
    slot->health = changed.health;
    slot->health_message = changed.message;
    if (slot->role != Role::kMember) return;
    if (changed.health != WorkerHealth::kHealthy) reason_ = {"HEALTH", changed.message};
    if (changed.health == WorkerHealth::kUnhealthy) SpeaksAgainst({"HEALTH", changed.message});
  }

  void operator()(const event::WorkerReadiness& readiness) {
    SlotState* slot = Find(state_, readiness.slot, readiness.run);
    if (!slot || slot->phase != Phase::kReady) return;
    const Reason reason = {"NOT_READY", readiness.message};
    // A successor is not waited for: it might never be well again, and those whom it is to replace serve.
    if (slot->role == Role::kSuccessor && !readiness.ready) return Fails(reason);
    if (slot->unready == readiness.ready) publish_ = true;
    slot->unready = !readiness.ready;
    slot->unready_message = readiness.message;
    if (!slot->unready || slot->role == Role::kSpare) return;
    reason_ = reason;
    SpeaksAgainst(reason);
  }

  void operator()(const event::WorkerAtFault& fault) {
    SlotState* slot = Find(state_, fault.slot, fault.run);
    if (!slot || slot->phase != Phase::kReady) return;
    slot->faulty_until = now_ + limits::kFaultMemory;
    slot->fault_message = fault.message;
    if (slot->role != Role::kSpare) reason_ = {"LINK_FAULT", fault.message};
  }

  void operator()(const event::WorkerFloods& flood) {
    SlotState* slot = Find(state_, flood.slot, flood.run);
    if (!slot || slot->phase != Phase::kReady) return;
    slot->flooding_until = now_ + limits::kFloodMemory;
    slot->flood_message = flood.message;
  }

  void operator()(const event::Tick&) {}

  // Looks at what is wanted and what is there, and asks for the difference.
  void Converge() {
    bool started = StartsNow(state_);
    bool run = state_.wanted && !state_.skipped;
    bool start = run && !state_.closing;
    if (start && (state_.prepare == Prepare::kNone || (state_.prepare == Prepare::kWaiting && state_.prepare_retry_at <= now_))) {
      state_.prepare = Prepare::kRunning;
      actions_.push_back(action::Prepare{});
    }
    if (state_.replacement && !start) GiveUp({"OVERTAKEN", "it was told to stop meanwhile"});
    if (!run) state_.soak_until.reset();
    if (run) AssignSeats();
    if (run) SpareTakesOver();
    if (state_.replacement) Replace();
    if (run) SpareTakesOver();  // one that is a successor's by now
    for (size_t i = 0; i < state_.slots.size(); ++i) {
      SlotState& slot = state_.slots[i];
      if (slot.faulty_until && *slot.faulty_until <= now_) slot.faulty_until.reset();
      if (slot.flooding_until && *slot.flooding_until <= now_) slot.flooding_until.reset();
      bool stay = run && (slot.role == Role::kMember || slot.role == Role::kSpare);
      if (start && stay && state_.prepare == Prepare::kDone) {
        bool due = !slot.parked && (!slot.retry_at || *slot.retry_at <= now_);
        if (slot.phase == Phase::kEmpty && due && (slot.role == Role::kMember || SpareMayStart(slot))) Start(slot, i, false);
      } else if (start && slot.role == Role::kSuccessor) {
        if (slot.phase == Phase::kEmpty) Start(slot, i, state_.replacement->at_once);
      } else if (!stay && slot.phase == Phase::kReady) {
        Drain(slot);
      } else if (!stay && slot.phase == Phase::kStarting) {
        Stop(slot, static_cast<int>(i));
      } else if (!run && slot.phase == Phase::kEmpty) {
        slot.retry_at.reset();
      }
      if (slot.role == Role::kLeaving && slot.phase == Phase::kEmpty) slot = SlotState();
    }
    if (start && state_.prepare == Prepare::kDone && !state_.replacement) ReplaceNext();
    while (!state_.slots.empty() && state_.slots.back().role == Role::kFree) state_.slots.pop_back();
    Observe();
    if (publish_ || StartsNow(state_) != started) actions_.push_back(action::Publish{});
    actions_.insert(actions_.end(), drains_.begin(), drains_.end());
    Wake();
  }

 private:
  void Start(SlotState& slot, size_t index, bool incoming) {
    slot.phase = Phase::kStarting;
    slot.retry_at.reset();
    slot.outdated = false;
    slot.run = state_.next_run++;
    actions_.push_back(action::StartWorker{static_cast<int>(index), slot.run, slot.number, incoming});
  }

  void Drain(SlotState& slot) {
    slot.phase = Phase::kDraining;
    publish_ = true;
    drains_.push_back(action::DrainWorker{static_cast<int>(&slot - state_.slots.data()), slot.run});
  }

  void Stop(SlotState& slot, int index) {
    slot.phase = Phase::kStopping;
    actions_.push_back(action::StopWorker{index, slot.run});
  }

  // Gives a worker a seat, the first free one.
  void Seat(int number, Role role) {
    auto seat = std::find_if(state_.slots.begin(), state_.slots.end(), [](const SlotState& slot) { return slot.role == Role::kFree; });
    if (seat == state_.slots.end()) seat = state_.slots.insert(seat, SlotState());
    seat->role = role;
    seat->number = number;
  }

  // The seat of the worker with that number, also of one that has not come yet.
  SlotState* Holder(int number) {
    for (SlotState& slot : state_.slots) {
      if ((slot.role == Role::kMember || slot.role == Role::kSpare) && slot.number == number) return &slot;
    }
    return nullptr;
  }

  SlotState* Spare() {
    auto spare = std::find_if(state_.slots.begin(), state_.slots.end(), [](const SlotState& slot) { return slot.role == Role::kSpare; });
    return spare == state_.slots.end() ? nullptr : &*spare;
  }

  // A seat for each worker that is wanted, and one for the spare; who has a number beyond those leaves.
  void AssignSeats() {
    const size_t numbers = state_.workers + (state_.warm_spare ? 1 : 0);
    size_t members = 0;
    SlotState* last = nullptr;
    for (SlotState& slot : state_.slots) {
      if (slot.role == Role::kSpare && (!state_.warm_spare || static_cast<size_t>(slot.number) >= numbers)) slot.role = Role::kLeaving;
      if (slot.role != Role::kMember) continue;
      if (static_cast<size_t>(slot.number) >= numbers) {
        slot.role = Role::kLeaving;
        continue;
      }
      ++members;
      if (last == nullptr || std::pair(!Serves(slot), slot.number) > std::pair(!Serves(*last), last->number)) last = &slot;
    }
    // One too many, while all that have left had higher numbers: it needs no other spare than itself.
    if (members > state_.workers) {
      last->role = Role::kSpare;
      if (state_.replacement && std::erase(state_.replacement->left, last->number) > 0) state_.replacement->spare = last->run;
      publish_ = true;
    }
    for (int number = 0; members < state_.workers; ++number) {
      if (Holder(number) != nullptr) continue;
      Seat(number, Role::kMember);
      ++members;
    }
    for (int number = 0; state_.warm_spare && Spare() == nullptr; ++number) {
      if (Holder(number) == nullptr) Seat(number, Role::kSpare);
    }
  }

  // Whether there is nothing more important: the others serve, none is being replaced, and who had its number before has gone.
  bool SpareMayStart(const SlotState& spare) const {
    return Complete() && !state_.replacement && std::none_of(state_.slots.begin(), state_.slots.end(), [&](const SlotState& slot) {
             return &slot != &spare && slot.role != Role::kFree && slot.number == spare.number && slot.phase != Phase::kEmpty;
           });
  }

  // The spare becomes a member instead of one that does not serve, of several instead of one that is not about to.
  void SpareTakesOver() {
    SlotState* const spare = Spare();
    if (spare == nullptr || !StandsBy(*spare)) return;
    SlotState* lost = nullptr;
    for (SlotState& slot : state_.slots) {
      if (slot.role == Role::kMember && slot.phase != Phase::kReady && (lost == nullptr || lost->phase == Phase::kStarting)) lost = &slot;
    }
    if (lost == nullptr) return;
    std::swap(spare->role, lost->role);
    publish_ = true;
    if (state_.replacement && state_.replacement->spare == spare->run) state_.replacement->left.push_back(spare->number);
  }

  // The next step of a replacement that is under way.
  void Replace() {
    ModuleState::Replacement& replacement = *state_.replacement;
    auto successor = [&] {
      return std::find_if(state_.slots.begin(), state_.slots.end(), [](const SlotState& slot) { return slot.role == Role::kSuccessor; });
    };
    if (replacement.at_once) {
      bool ready = std::all_of(state_.slots.begin(), state_.slots.end(),
                               [](const SlotState& slot) { return slot.role != Role::kSuccessor || slot.phase == Phase::kReady; });
      if (ready && !std::exchange(replacement.announced, true)) actions_.push_back(action::SuccessorsReady{});
      return;
    }
    if (auto next = successor(); next != state_.slots.end() && next->phase == Phase::kReady) {
      // Without a worker of its number it comes too late: fewer are wanted since. What was a member may be the spare by now.
      SlotState* old = Holder(next->number);
      next->role = old != nullptr ? old->role : Role::kLeaving;
      if (old != nullptr) old->role = Role::kLeaving;
      publish_ = true;
    }
    if (successor() != state_.slots.end()) return;
    // Workers that are gone since, or are no longer wanted, need no successor.
    while (!replacement.left.empty()) {
      const int number = replacement.left.front();
      replacement.left.erase(replacement.left.begin());
      if (SlotState* old = Holder(number); old != nullptr && Serves(*old)) return Seat(number, Role::kSuccessor);
    }
    if (SlotState* spare = Spare(); spare != nullptr && InService(*spare) && spare->run == replacement.spare) Drain(*spare);
    state_.replacement.reset();
    actions_.push_back(action::ReplaceDone{});
  }

  // The successors go; they have served nobody.
  void GiveUp(const Reason& reason) {
    state_.replacement.reset();
    for (size_t i = 0; i < state_.slots.size(); ++i) {
      SlotState& slot = state_.slots[i];
      if (slot.role != Role::kSuccessor) continue;
      slot.role = Role::kLeaving;
      if (slot.phase == Phase::kStarting || slot.phase == Phase::kReady) Stop(slot, static_cast<int>(i));
    }
    actions_.push_back(action::ReplaceFailed{reason});
  }

  // A successor has failed: at once, or, when the takeover is being written down, in answer to TakeOver.
  void Fails(const Reason& reason) {
    if (!state_.replacement->announced) return GiveUp(reason);
    if (state_.replacement->failure.code.empty()) state_.replacement->failure = reason;
  }

  void SpeaksAgainst(const Reason& reason) {
    if (state_.soak_until && now_ < *state_.soak_until) actions_.push_back(action::SoakFailed{reason});
    state_.soak_until.reset();
  }

  // Lets an outdated worker go when no other is on its way, so that one at most is missing. One that waits for its backoff, or is not
  // started any more, is not waited for. The spare is the first, so that it is a new one that takes the place of each of the others.
  void ReplaceNext() {
    for (const SlotState& slot : state_.slots) {
      if (slot.role != Role::kMember && slot.role != Role::kSpare) continue;
      bool comes = slot.role == Role::kMember && slot.phase == Phase::kEmpty && !slot.parked && !(slot.retry_at && *slot.retry_at > now_);
      if (slot.phase != Phase::kEmpty && slot.phase != Phase::kReady) return;
      if (comes) return;
    }
    SlotState* next = Spare();
    if (next == nullptr || !InService(*next) || !next->outdated || !Complete()) {
      auto member = std::find_if(state_.slots.begin(), state_.slots.end(), [](const SlotState& slot) { return Serves(slot) && slot.outdated; });
      if (member == state_.slots.end()) return;
      next = &*member;
    }
    Drain(*next);
    SpareTakesOver();
  }

  void Observe() {
    ObservedState before = state_.observed;
    Reason reason_before = state_.reason;
    if (!reason_.code.empty()) state_.reason = reason_;
    state_.observed = Observed();
    if (state_.observed == ObservedState::kDegraded && Complete()) state_.reason = Complaint();
    // A module that runs well has nothing to explain; a stopped one keeps why it failed.
    if (state_.observed == ObservedState::kRunning) state_.reason = {};
    if (state_.observed == ObservedState::kSkipped) state_.reason = {"FLAG_OFF", "its feature flag is off"};
    if (state_.observed != before) state_.since = now_;
    bool changed = state_.observed != before || !(state_.reason == reason_before) || Settled(state_) != settled_before_;
    if (changed) actions_.push_back(action::Report{});
  }

  // Whether every worker that is wanted serves.
  bool Complete() const {
    const auto ready = std::count_if(state_.slots.begin(), state_.slots.end(), Serves);
    return state_.prepare != Prepare::kFailed && static_cast<size_t>(ready) == state_.workers;
  }

  // What is wrong with one that serves: of several things the worst, and none that is over.
  Reason Complaint() const {
    auto first = [this](auto is) {
      auto slot = std::find_if(state_.slots.begin(), state_.slots.end(), [&](const SlotState& s) { return Serves(s) && is(s); });
      return slot == state_.slots.end() ? nullptr : &*slot;
    };
    if (auto* slot = first([](const SlotState& s) { return s.unready; })) return {"NOT_READY", slot->unready_message};
    if (auto* slot = first([](const SlotState& s) { return s.health != WorkerHealth::kHealthy; })) return {"HEALTH", slot->health_message};
    if (auto* slot = first([](const SlotState& s) { return s.faulty_until.has_value(); })) return {"LINK_FAULT", slot->fault_message};
    if (auto* slot = first([](const SlotState& s) { return s.flooding_until.has_value(); })) return {"LOG_FLOOD", slot->flood_message};
    return state_.reason;
  }

  ObservedState Observed() const {
    int ready = 0, starting = 0, waiting = 0, quarantined = 0, parked = 0, unwell = 0, present = 0;
    for (const SlotState& slot : state_.slots) {
      present += slot.phase != Phase::kEmpty;
      if (slot.role != Role::kMember) continue;
      ready += slot.phase == Phase::kReady;
      unwell += Unwell(slot);
      starting += slot.phase == Phase::kStarting;
      parked += slot.parked;
      // Only a wait beyond the burst is a backoff; a restart at once is a start.
      waiting += slot.retry_at && slot.backoff.waiting_long();
      quarantined += slot.retry_at && slot.backoff.quarantined();
    }
    if (!state_.wanted || state_.skipped) {
      if (present > 0) return ObservedState::kStopping;
      return state_.wanted ? ObservedState::kSkipped : ObservedState::kStopped;
    }
    if (state_.closing && ready == 0) return ObservedState::kStopping;
    int all = static_cast<int>(state_.workers);
    if (state_.prepare == Prepare::kFailed) return ready > 0 ? ObservedState::kDegraded : ObservedState::kFailed;
    if (ready == all && all > 0) return unwell > 0 ? ObservedState::kDegraded : ObservedState::kRunning;
    // Some serve: that is a start under way until one of the others has failed for good, or a loss of what was complete.
    if (ready > 0 && (waiting + quarantined + parked > 0 || state_.observed != ObservedState::kStarting))
      return ObservedState::kDegraded;
    if (state_.prepare == Prepare::kWaiting && state_.prepare_backoff.waiting_long()) return ObservedState::kBackoff;
    if (parked > 0 && ready + starting == 0) return ObservedState::kFailed;
    if (starting > 0) return ObservedState::kStarting;
    if (quarantined > 0) return ObservedState::kQuarantined;
    if (waiting > 0) return ObservedState::kBackoff;
    return ObservedState::kStarting;
  }

  void Wake() {
    std::optional<Instant> at;
    if (state_.wanted && !state_.skipped && !state_.closing) {
      auto by = [&](Instant due) { at = at ? std::min(*at, due) : due; };
      if (state_.prepare == Prepare::kWaiting) by(state_.prepare_retry_at);
      for (const SlotState& slot : state_.slots) {
        if (slot.phase == Phase::kEmpty && slot.retry_at && *slot.retry_at > now_) by(*slot.retry_at);
        if (slot.phase == Phase::kReady && slot.faulty_until) by(*slot.faulty_until);
        if (slot.phase == Phase::kReady && slot.flooding_until) by(*slot.flooding_until);
      }
    }
    if (at) actions_.push_back(action::Wake{*at});
  }

  ModuleState& state_;
  const Instant now_;
  const bool settled_before_;
  std::vector<Action>& actions_;
  Reason reason_;
  bool publish_ = false;
  std::vector<action::DrainWorker> drains_;  // behind the Publish
};

}  // namespace

std::vector<Action> Step(ModuleState& state, const Event& event, Instant now) {
  std::vector<Action> actions;
  Apply apply(state, now, actions);
  std::visit(apply, event);
  apply.Converge();
  return actions;
}

}  // namespace bulkhead
