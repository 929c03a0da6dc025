// A module of a simulated node, as the Reconciler keeps it and as what must hold of it is judged; and what a run has seen.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "supervisor/lifecycle/step.h"
#include "tests/sim/process.h"
#include "tests/sim/restart_law.h"

namespace bulkhead::sim {

// What a run has seen.
struct Totals {
  uint64_t worlds = 0, events = 0, starts = 0, exits = 0, killed = 0, quarantines = 0, parked = 0, shutdowns = 0;
  uint64_t upgrades = 0, upgrades_failed = 0, rollbacks = 0, spares = 0, taken_over = 0;
  uint64_t blocked = 0, database_away = 0, quarantined = 0, backed_off = 0, fingerprint = 14695981039346656037u;
  Millis simulated{0};
};

// A preparation is tried again whatever the policy says of workers that have ended.
inline RestartPolicy Always(RestartPolicy policy) {
  policy.when = RestartWhen::kAlways;
  return policy;
}

struct SimModule {
  SimModule(std::string name, std::vector<std::string> dependencies, int workers, Times times, const RestartPolicy& policy, uint64_t seed)
      : name(std::move(name)), dependencies(std::move(dependencies)), workers(workers), times(times), state(seed, policy), preparation_law(Always(policy)) {}

  const std::string name;
  const std::vector<std::string> dependencies;
  int workers;
  bool warm_spare = false;
  const Times times;
  Mood mood = Mood::kFaultless;
  bool enabled = false, skipped = false;  // as administrators wish
  ModuleState state;
  // As the Reconciler keeps them.
  struct Running {
    uint64_t run = 0;
    std::shared_ptr<Process> process;
    bool leaving = false;  // drained or stopped on demand
    bool incoming = false;  // a successor that has not taken over
    bool outdated = false;  // to be replaced
    bool stop_asked = false;
    Instant ready_since{};
    bool well = true;  // by its last Health
    bool unready = false;
    std::optional<Instant> at_fault, flooded;
  };
  std::vector<Running> running;  // by slot
  bool awaiting = false, preparing = false;
  int upgrading_to = 0;  // workers of the version that is to take over; 0: none is
  bool upgrading_to_spare = false;
  uint64_t rolled = 0;   // runs up to this one are of before the last rolling restart
  int versions = 0;      // that have taken over
  int publishing = 0;
  uint64_t wake = 0;  // the valid one
  // What must hold of it.
  bool prepared = false;                      // since it was last wanted
  bool overtaken = false;                     // it was wanted anew while it was prepared
  std::optional<Instant> preparation_failed;  // for a while
  std::vector<RestartLaw> laws;               // by slot
  RestartLaw preparation_law;                 // of preparations that are tried again, which are never quarantined
  std::set<uint64_t> listed, standby;         // runs in the newest Directory
  std::set<uint64_t> adopted;                 // of both, in the one that every reader has
  bool routed = false, told_to_wait = false;  // in the newest Directory
  uint64_t last_run = 0, starts = 0;

  bool Is(size_t slot, SlotState::Role role) const { return slot < state.slots.size() && state.slots[slot].role == role; }
  bool IsMember(size_t slot) const { return Is(slot, SlotState::Role::kMember); }
  bool IsSpare(size_t slot) const { return Is(slot, SlotState::Role::kSpare); }
  std::vector<size_t> Seats(SlotState::Role role) const {
    std::vector<size_t> seats;
    for (size_t i = 0; i < state.slots.size(); ++i) {
      if (Is(i, role)) seats.push_back(i);
    }
    return seats;
  }
  std::vector<size_t> Members() const { return Seats(SlotState::Role::kMember); }
  std::vector<size_t> Spares() const { return Seats(SlotState::Role::kSpare); }
  bool AnyProcess() const {
    return std::any_of(running.begin(), running.end(), [](const Running& one) { return one.process != nullptr; });
  }
  static bool Serves(const Running& running) { return running.process && running.process->ready() && !running.leaving; }
  bool AllServe() const {
    const std::vector<size_t> members = Members();
    return members.size() == static_cast<size_t>(workers) && std::all_of(members.begin(), members.end(), [this](size_t i) { return Serves(running[i]); });
  }
  bool MayLeave(int slot) const {
    const auto i = static_cast<size_t>(slot);
    if (IsSpare(i) && running[i].run <= rolled) return true;
    return !state.wanted || skipped || (!IsMember(i) && !IsSpare(i)) || running[i].outdated;
  }
  bool OthersServeOrWait(int slot) const {
    for (size_t i = 0; i < state.slots.size(); ++i) {
      const SlotState::Phase phase = state.slots[i].phase;
      const bool other = (IsMember(i) || IsSpare(i)) && static_cast<int>(i) != slot;
      if (other && phase != SlotState::Phase::kReady && phase != SlotState::Phase::kEmpty) return false;
    }
    return true;
  }
  // The run of a spare that is to serve as soon as somebody is lost; else 0.
  uint64_t Standby() const {
    for (size_t i : Spares()) {
      if (Serves(running[i]) && !running[i].unready) return running[i].run;
    }
    return 0;
  }
  // Whether nothing keeps the spare from being started.
  bool SpareMayStart(size_t spare) const {
    if (!AllServe() || state.replacement || state.closing) return false;
    for (size_t i = 0; i < state.slots.size(); ++i) {
      if (i != spare && !Is(i, SlotState::Role::kFree) && state.slots[i].number == state.slots[spare].number && running[i].process) return false;
    }
    return true;
  }
};

}  // namespace bulkhead::sim
